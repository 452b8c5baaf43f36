// Compiled once per instruction set; the loops are in the .inc files.
#include "crf/kernels.h"

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace lidcam::crf::LIDCAM_TARGET {
namespace {

#include "cpu/simd.inc"

#include "crf/record.inc"

#include "crf/exponential.inc"

#include "crf/locate.inc"

#include "crf/look_up.inc"

#include "crf/normalise.inc"

#include "crf/two_exact.inc"

#include "crf/two_fast.inc"

#include "crf/rows.inc"

#include "crf/softmax.inc"

#include "crf/many_exact.inc"

#include "crf/many_fast.inc"

}  // namespace

const Kernels kKernels = {
    {locate_any, look_up, corners_any, splat_ones_any, blur_axis, expand_pairs_any, norms_any},
    {splat_pairs_any, splat_both, blur_pairs, slice_pairs_any, softmax_pairs},
    {slice_fast, splat_fast, gather_any, fill_any, settle, convert, scale, differences, probabilities_fast},
    {compatibility, interleave, separate},
    {slice_many, splat_many, softmax_many, blur_many},
    {slice_tiles, splat_tiles, softmax_tiles, blur_tiles},
    within,
    moved,
};

}  // namespace lidcam::crf::LIDCAM_TARGET
