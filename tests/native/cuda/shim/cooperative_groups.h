// Clusters of blocks, as far as our kernels use them.
#pragma once
#include "shim/fibers.h"

namespace cooperative_groups {

struct cluster_group {
  unsigned block_rank() const { return unsigned(lidcam::shim::self().block->rank); }
  unsigned num_blocks() const { return unsigned(lidcam::shim::self().block->cluster->blocks.size()); }
  void sync() const { lidcam::shim::meet_cluster(); }
  template <class T>
  T* map_shared_rank(T* p, int rank) const {
    const lidcam::shim::Block& mine = *lidcam::shim::self().block;
    const auto offset = reinterpret_cast<unsigned char*>(p) - mine.shared;
    return reinterpret_cast<T*>(mine.cluster->blocks[rank].shared + offset);
  }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
