#define LIDCAM_ISA avx2
#include "pas/loops.inc"
