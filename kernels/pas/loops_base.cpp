#define LIDCAM_ISA base
#include "pas/loops.inc"
