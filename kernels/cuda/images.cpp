#include "cuda/images.h"

// kernels/cuda/CMakeLists.txt gives the paths where nvcc was found.
#ifdef LIDCAM_PAS_FATBIN
#define LIDCAM_EMBED(name, path)                                                               \
  asm(".pushsection .rodata,\"a\"\n.balign 64\n" #name "_begin:\n.incbin \"" path "\"\n" #name \
      "_end:\n.byte 0\n.popsection\n");                                                        \
  extern "C" __attribute__((visibility("hidden"))) const char name##_begin[], name##_end[]

LIDCAM_EMBED(lidcam_fatbin_pas, LIDCAM_PAS_FATBIN);
LIDCAM_EMBED(lidcam_fatbin_components, LIDCAM_COMPONENTS_FATBIN);
LIDCAM_EMBED(lidcam_fatbin_crf, LIDCAM_CRF_FATBIN);
LIDCAM_EMBED(lidcam_fatbin_picture, LIDCAM_PICTURE_FATBIN);
LIDCAM_EMBED(lidcam_ptx_75, LIDCAM_AOT_PTX_75);
LIDCAM_EMBED(lidcam_ptx_90, LIDCAM_AOT_PTX_90);
#define LIDCAM_SPAN(name) {name##_begin, size_t(name##_end - name##_begin)}
#else
#define LIDCAM_SPAN(name) {nullptr, 0}
#define LIDCAM_ARCHITECTURES ""
#endif

namespace lidcam::cuda {
namespace {

struct Span {
  const char* data;
  size_t size;
};

Span span(Image image) {
  switch (image) {
    case Image::pas: return LIDCAM_SPAN(lidcam_fatbin_pas);
    case Image::components: return LIDCAM_SPAN(lidcam_fatbin_components);
    case Image::crf: return LIDCAM_SPAN(lidcam_fatbin_crf);
    case Image::picture: return LIDCAM_SPAN(lidcam_fatbin_picture);
    case Image::pas_words_75: return LIDCAM_SPAN(lidcam_ptx_75);
    case Image::pas_words_90: return LIDCAM_SPAN(lidcam_ptx_90);
  }
  return {nullptr, 0};
}

}  // namespace

const void* image_data(Image image) { return span(image).data; }
size_t image_size(Image image) { return span(image).size; }

std::string aot_ptx(bool clusters) {
  const Span whole = span(clusters ? Image::pas_words_90 : Image::pas_words_75);
  return std::string(whole.data ? whole.data : "", whole.size);
}

const char* architectures() { return LIDCAM_ARCHITECTURES; }

}  // namespace lidcam::cuda
