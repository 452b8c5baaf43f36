#define LIDCAM_ISA kBaseline
#define LIDCAM_ISA_NAME "baseline"
#include "crf/kernels_body.inc"
