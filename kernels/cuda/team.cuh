// The blocks that share one task: one block, or a cluster of blocks (compute capability 9 and later).
#pragma once
#include <cooperative_groups.h>

namespace lidcam::cuda {

struct Block {
  __device__ int rank() const { return 0; }
  static constexpr int kMost = 1;  // blocks of a team
  __device__ int size() const { return 1; }
  __device__ void sync() const { __syncthreads(); }
  __device__ void sync_remote() const {}
  __device__ void arrive() const {}
  __device__ void wait() const {}
  template <class T>
  __device__ const T* at(const T* p, int) const {
    return p;
  }
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
struct Cluster {
  cooperative_groups::cluster_group group = cooperative_groups::this_cluster();
  __device__ int rank() const { return int(group.block_rank()); }
  static constexpr int kMost = 8;
  __device__ int size() const { return int(group.num_blocks()); }
  __device__ void sync() const { group.sync(); }
  // No block may leave, or write what others read, before they have read it.
  __device__ void sync_remote() const { group.sync(); }
  // The same in two halves: what others read of this block has been read once all have called arrive. It orders nothing
  // else, and so does not wait for what was written before.
  __device__ void arrive() const { __cluster_barrier_arrive_relaxed(); }
  __device__ void wait() const { __cluster_barrier_wait(); }
  template <class T>
  __device__ const T* at(const T* p, int rank) const {
    return group.map_shared_rank(const_cast<T*>(p), rank);
  }
};
#endif

}  // namespace lidcam::cuda
