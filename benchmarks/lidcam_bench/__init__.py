"""lidcam_bench: data sets, metrics, evaluation and reports of localization artifacts."""
