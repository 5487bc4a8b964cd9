// The part of cooperative groups that a co-resident grid needs: this_grid() and this_thread_block().
#pragma once
namespace cooperative_groups {
struct grid_group {
    int line;
    void sync() const { trine_grid_barrier(line); }
    bool is_valid() const { return true; }
    unsigned long long size() const {
        return (unsigned long long)gridDim.x * gridDim.y * gridDim.z * blockDim.x * blockDim.y * blockDim.z;
    }
    unsigned long long thread_rank() const {
        const unsigned long long block = blockIdx.x + gridDim.x * (blockIdx.y + (unsigned long long)gridDim.y * blockIdx.z);
        return block * (blockDim.x * blockDim.y * blockDim.z) + threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    }
};
struct thread_block {
    int line;
    void sync() const { trine_block_barrier(line, 0, 0); }
    unsigned thread_rank() const { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
    unsigned size() const { return blockDim.x * blockDim.y * blockDim.z; }
};
static inline grid_group this_grid(int line = __builtin_LINE()) { return {line}; }
static inline thread_block this_thread_block(int line = __builtin_LINE()) { return {line}; }
}  // namespace cooperative_groups
