#define LIDCAM_ISA avx512
#include "pas/loops.inc"
