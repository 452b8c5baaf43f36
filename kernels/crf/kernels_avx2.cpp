#define LIDCAM_ISA kAvx2
#define LIDCAM_ISA_NAME "avx2"
#include "crf/kernels_body.inc"
