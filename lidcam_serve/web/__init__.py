"""`lidcam web`: the page of `lidcam serve` as a static site, on which the browser runs the artifact."""
