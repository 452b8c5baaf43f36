#define LIDCAM_ISA kAvx512
#define LIDCAM_ISA_NAME "avx512"
#include "crf/kernels_body.inc"
