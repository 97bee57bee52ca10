// Runs counter.cu on the CPU: a block is THREADS threads of the system, blocks come one after another.
#include <pthread.h>

#include <cmath>
#include <thread>
#include <vector>

struct Index {
    int x;
};
static thread_local Index threadIdx;
static Index blockIdx, blockDim = {THREADS}, gridDim;
static pthread_barrier_t gate;

#define __global__
#define __device__
#define __shared__ static
#define __syncthreads() pthread_barrier_wait(&gate)

template <typename T>
static T atomicAdd(T* at, T value) {
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}

#include SOURCE

template <typename Kernel, typename... Arguments>
static void launch(int blocks, Kernel kernel, Arguments... arguments) {
    gridDim.x = blocks;
    pthread_barrier_init(&gate, nullptr, THREADS);
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        std::vector<std::thread> threads;
        for (int t = 0; t < THREADS; t++)
            threads.emplace_back([=] {
                threadIdx.x = t;
                kernel(arguments...);
            });
        for (auto& thread : threads) thread.join();
    }
    pthread_barrier_destroy(&gate);
}

extern "C" void launch_transpose(
    int blocks, const long long* indptr, const int* indices, int n_users, long long* cursor, int* users,
    long long* entries) {
    launch(blocks, transpose, indptr, indices, n_users, cursor, users, entries);
}

extern "C" void launch_count_rows(
    int blocks, const long long* indptr, const int* indices, const long long* times, long long window,
    const long long* starts, const int* users, const long long* entries, const int* degrees, const int* order,
    int n_items, int measure, int k, int* next, int* counters, int* touched, int* ids, float* scores) {
    launch(blocks, count_rows, indptr, indices, times, window, starts, users, entries, degrees, order, n_items,
           measure, k, next, counters, touched, ids, scores);
}
