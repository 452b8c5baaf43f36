"""`lidcam serve`: artifacts behind HTTP and gRPC.

The Open Inference Protocol for programs, `/v1` for people, a page at `/`. A picture takes the same path as in a
`Localizer`: `lidcam_rt.pipeline` prepares, runs and finishes it; this package adds queues, limits and formats.
docs/serving.md is for users.
"""
