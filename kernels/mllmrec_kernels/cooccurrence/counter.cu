// Co-occurrence by counting rows, in CUDA; compiled by gpu.py, where the method is described.

// What the list of item i is sorted by: one correctly rounded division of integers, as in reference.py.
static __device__ double key_of(int measure, int c, int d_i, int d_j) {
    if (measure == 0) return (double)c;
    if (measure == 1) return (double)c * (double)c / (double)d_j;
    return (double)c / (double)(d_i + d_j - c);
}

// users[cursor[j]++] = u, and entries likewise, for every entry e = (u, j): the transpose, in any order within an item.
extern "C" __global__ void transpose(
    const long long* indptr, const int* indices, int n_users, long long* cursor, int* users, long long* entries) {
    const int lane = threadIdx.x % LANES;
    const int warps = blockDim.x / LANES * gridDim.x;
    for (int u = (blockIdx.x * blockDim.x + threadIdx.x) / LANES; u < n_users; u += warps)
        for (long long e = indptr[u] + lane; e < indptr[u + 1]; e += LANES) {
            const long long at = (long long)atomicAdd((unsigned long long*)&cursor[indices[e]], 1ULL);
            users[at] = u;
            if (entries) entries[at] = e;
        }
}

// A block takes one item after another from `order`. counter and touched are its own n_items integers; counter is
// zero before and after. Warps share the item's users, lanes a user's items. Then the best of what was touched, the
// best after that, and so on: k passes, for the order (key falling, id rising) is total.
extern "C" __global__ void count_rows(
    const long long* indptr, const int* indices, const long long* times, long long window, const long long* starts,
    const int* users, const long long* entries, const int* degrees, const int* order, int n_items, int measure, int k,
    int* next, int* counters, int* all_touched, int* ids, float* scores) {
    __shared__ int item, n_touched, best_id[THREADS];
    __shared__ double best_key[THREADS];
    const int thread = threadIdx.x, lane = thread % LANES;
    int* counter = counters + (long long)blockIdx.x * n_items;
    int* touched = all_touched + (long long)blockIdx.x * n_items;
    for (;;) {
        __syncthreads();
        if (thread == 0) {
            const int place = atomicAdd(next, 1);
            item = place < n_items ? order[place] : -1;
            n_touched = 0;
        }
        __syncthreads();
        const int i = item;
        if (i < 0) return;
        for (long long p = starts[i] + thread / LANES; p < starts[i + 1]; p += THREADS / LANES) {
            const int u = users[p];
            for (long long e = indptr[u] + lane; e < indptr[u + 1]; e += LANES) {
                if (times) {
                    const long long apart = times[e] - times[entries[p]];
                    if (apart > window || -apart > window) continue;
                }
                const int j = indices[e];
                if (j != i && atomicAdd(&counter[j], 1) == 0) touched[atomicAdd(&n_touched, 1)] = j;
            }
        }
        __syncthreads();
        double last_key = 0.0;
        int last_id = -1;
        for (int place = 0; place < k; place++) {
            double key = -1.0;
            int id = -1;
            for (int t = thread; place < n_touched && t < n_touched; t += THREADS) {
                const int j = touched[t];
                const double own = key_of(measure, counter[j], degrees[i], degrees[j]);
                const bool after = place == 0 || own < last_key || (own == last_key && j > last_id);
                if (after && (own > key || (own == key && j < id))) key = own, id = j;
            }
            best_key[thread] = key;
            best_id[thread] = id;
            for (int half = THREADS / 2; half > 0; half /= 2) {
                __syncthreads();
                if (thread >= half) continue;
                const double other = best_key[thread + half];
                const int other_id = best_id[thread + half];
                const bool ahead = other > best_key[thread] || (other == best_key[thread] && other_id < best_id[thread]);
                if (other_id >= 0 && ahead) best_key[thread] = other, best_id[thread] = other_id;
            }
            __syncthreads();
            last_key = best_key[0];
            last_id = best_id[0];
            if (thread == 0) {
                const long long at = (long long)i * k + place;
                ids[at] = last_id;
                scores[at] = last_id < 0 ? 0.0f : (float)(measure == 1 ? sqrt(last_key / (double)degrees[i]) : last_key);
            }
            __syncthreads();
        }
        for (int t = thread; t < n_touched; t += THREADS) counter[touched[t]] = 0;
    }
}
