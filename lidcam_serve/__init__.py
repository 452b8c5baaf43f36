"""`lidcam serve`: artifacts behind HTTP and gRPC.

The Open Inference Protocol for programs, `/v1` for people, a page at `/`. One picture takes the same road as in a
`Localizer`: `lidcam_rt.pipeline` prepares, runs and finishes it; what is here is queues, limits and formats.
docs/serving.md is for users.
"""
