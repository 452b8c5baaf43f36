// A hash table from the keys of simplices or vertices to ids that count from 0 in order of insertion.
#pragma once
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "cpu/stop.h"
#include "crf/keys.h"

namespace lidcam::crf {

// A bucket has eight slots: one word with a byte of each key's hash (0 where free; used slots come first), and eight
// ids. The word answers most look-ups, a block of them at once and without branches: half of a lattice's look-ups miss,
// in an order that no processor can predict.
template <typename Codec>
class Table {
 public:
  using Key = typename Codec::Key;

  explicit Table(size_t expected) {
    int bits = 5;
    while ((size_t(kMean) << bits) < expected) ++bits;
    reset(bits);
    keys_.allocate(limit_ + kBlock);
  }
  // The ids of the first `count` of kBlock keys; what is not there is inserted. out: every `stride`.
  void insert(const Key* keys, int count, int32_t* out, int stride) {
    if (size_t(size_) + kBlock > limit_) grow();
    alignas(64) int32_t ids[kBlock];
    look(keys, count, ids);
    for (int i = 0; i < count; ++i) out[i * stride] = ids[i] - 1;
    // New keys, often several times the same one, are looked up again without branches.
    int32_t size = size_;
    for (int i = 0, n = select(ids, count, 1), late; i < n; i = late + 1) {
      for (late = i; late < n; ++late) {
        const Key& key = keys[selected_[late]];
        const uint64_t hash = Codec::hash(key), word = words_[hash >> shift_], tag = hash_tag(hash, shift_);
        const uint64_t same = zero_bytes(word ^ (tag * kEachByte)), places = same | zero_bytes(word);
        const int at = __builtin_ctzll(places | uint64_t(1) << 63) >> 3;
        int32_t* slot = &ids_[8 * (hash >> shift_) + at];
        uint64_t fresh = same == 0;
        __asm__("" : "+r"(fresh));  // keeps the compiler from a branch, which would be mispredicted
        const int32_t known = *slot & (int32_t(fresh) - 1), id = known + (size & -int32_t(fresh));
        keys_[size] = key;
        if (__builtin_expect((places == 0) | !(keys_[id] == key), 0)) break;
        *slot = id;
        words_[hash >> shift_] = word | (fresh * tag) << (8 * at);
        size += int32_t(fresh);
        out[selected_[late] * stride] = id;
      }
      size_ = size;
      if (late < n) out[selected_[late] * stride] = insert_one(keys[selected_[late]]);
      size = size_;
    }
  }
  // The ids of the first `count` of kBlock keys plus 1, or 0.
  void find(const Key* keys, int count, int32_t* ids) {
    look(keys, count, ids);
    for (int i = 0, n = select(ids, count, 0); i < n; ++i) ids[selected_[i]] = find_one(keys[selected_[i]]);
  }
  int32_t size() const { return size_; }
  // At least kBlock keys can be read from here.
  const Key* keys() const { return keys_.data(); }

 private:
  static constexpr int kMean = 4;  // largest mean number of keys per bucket

  void look(const Key* keys, int count, int32_t* ids) const {
    if constexpr (std::is_same_v<Key, uint64_t>)
      kernels().lattice.look_up({words_.data(), ids_.data(), keys_.data(), shift_}, keys, ids);
    else
      for (int i = 0; i < count; ++i) ids[i] = find_one(keys[i]);
  }
  int select(const int32_t* ids, int count, int32_t below) {  // to selected_
    int n = 0;
    for (int i = 0; i < count; ++i) {
      selected_[n] = i;
      n += ids[i] < below;
    }
    return n;
  }
  // Visits the places of a hash until visit(place) is true. Returns that place, or ~p for the first free place p.
  template <typename Visit>
  int64_t walk(uint64_t hash, Visit&& visit) const {
    for (size_t b = hash >> shift_;; b = (b + 1) & mask_) {
      const uint64_t word = words_[b], free = zero_bytes(word);
      uint64_t same = zero_bytes(word ^ (hash_tag(hash, shift_) * kEachByte));
      if (free) same &= (free & -free) - 1;  // free slots hold no id
      for (; same; same &= same - 1) {
        const int64_t place = int64_t(8 * b) + (__builtin_ctzll(same) >> 3);
        if (visit(place)) return place;
      }
      if (free) return ~(int64_t(8 * b) + (__builtin_ctzll(free) >> 3));
    }
  }
  int32_t find_one(const Key& key) const {
    const int64_t place = walk(Codec::hash(key), [&](int64_t at) { return keys_[ids_[at]] == key; });
    return place < 0 ? 0 : ids_[place] + 1;
  }
  int32_t insert_one(const Key& key) {
    const uint64_t hash = Codec::hash(key);
    const int64_t place = walk(hash, [&](int64_t at) { return keys_[ids_[at]] == key; });
    if (place >= 0) return ids_[place];
    put(~place, hash, size_);
    keys_[size_] = key;
    return size_++;
  }
  void put(int64_t place, uint64_t hash, int32_t id) {
    words_[place / 8] |= hash_tag(hash, shift_) << (8 * (place % 8));
    ids_[place] = id;
  }
  void reset(int bits) {
    const size_t buckets = size_t(1) << bits;
    words_.allocate(buckets);
    ids_.allocate(8 * buckets);
    std::memset(words_.data(), 0, 8 * buckets);
    mask_ = buckets - 1;
    shift_ = 64 - bits;
    limit_ = kMean * buckets;
  }
  void grow() {
    if (size_ > (1 << 30) - 1) throw std::invalid_argument("the lattice has too many vertices");
    reset(64 - shift_ + 1);
    Buffer<Key> keys(limit_ + kBlock);
    std::memcpy(static_cast<void*>(keys.data()), keys_.data(), size_t(size_) * sizeof(Key));
    keys_ = std::move(keys);
    for (int32_t i = 0; i < size_; ++i) {
      if (i % (1 << 16) == 0) cpu::check_stop();
      const uint64_t hash = Codec::hash(keys_[i]);
      put(~walk(hash, [](int64_t) { return false; }), hash, i);
    }
  }
  Buffer<uint64_t> words_;
  Buffer<int32_t> ids_;
  Buffer<Key> keys_;  // key of each id
  size_t mask_ = 0, limit_ = 0;
  int shift_ = 0;
  int32_t size_ = 0;
  int selected_[kBlock];
};

}  // namespace lidcam::crf
