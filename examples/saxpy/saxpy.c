/* y = a * x + y over n floats with a CUDA kernel: a scalar argument, and a grid smaller than the data. */
#include "guest.h"
#include "wasi_cuda.h"

static const char ptx[] = {
#embed "saxpy.ptx"
};

enum {
    BLOCK = 128,
    MAX_BLOCKS = 1024,     /* the kernel strides over the rest */
    MAX_COUNT = 500000000, /* two arrays of floats stay below 4 GiB */
};

static float element_x(int32_t i) {
    return (float)(i % 1000);
}

static double failed(const char *what) {
    char text[512];
    const int32_t bytes = wasi_cuda_last_error_copy(text, sizeof text);
    guest_print(GUEST_STDERR, "saxpy: ");
    guest_print(GUEST_STDERR, what);
    if (bytes > 0) {
        guest_print(GUEST_STDERR, ": ");
        guest_write(GUEST_STDERR, text, (size_t)bytes);
    }
    guest_print(GUEST_STDERR, "\n");
    return __builtin_nan("");
}

/* x[i] = i mod 1000, y[i] = 1; y = a * x + y. Returns y, or NULL with the reason on stderr. */
static float *compute(int32_t n, float a) {
    if (n < 1 || n > MAX_COUNT) {
        failed("n must be from 1 to 500000000");
        return NULL;
    }
    float *const x = guest_arena(2 * sizeof(float) * (uint64_t)n);
    if (!x) {
        failed("no memory for two arrays of this size; use a smaller n");
        return NULL;
    }
    float *const y = x + n;
    for (int32_t i = 0; i < n; i++) {
        x[i] = element_x(i);
        y[i] = 1.0f;
    }
    const int64_t kernel = wasi_cuda_load(ptx, sizeof ptx, "saxpy");
    if (kernel < 0) {
        failed("the kernel cannot be loaded");
        return NULL;
    }
    wasi_cuda_argv argv = {0};
    wasi_cuda_arg_i32(&argv, n);
    wasi_cuda_arg_f32(&argv, a);
    wasi_cuda_arg_pointer(&argv, x, sizeof(float) * (size_t)n);
    wasi_cuda_arg_pointer(&argv, y, sizeof(float) * (size_t)n);
    int32_t blocks = (n + BLOCK - 1) / BLOCK;
    if (blocks > MAX_BLOCKS) {
        blocks = MAX_BLOCKS;
    }
    if (wasi_cuda_run(kernel, (wasi_cuda_dim3){blocks, 1, 1}, (wasi_cuda_dim3){BLOCK, 1, 1}, 0, &argv)) {
        failed("the launch was refused");
        return NULL;
    }
    return y;
}

/* The sum of y: run(1000, 2) is 2 * 499500 + 1000 = 1000000. NaN when it cannot, with the reason on stderr. */
GUEST_EXPORT("run") double run(int32_t n, float a) {
    const float *y = compute(n, a);
    if (!y) {
        return __builtin_nan("");
    }
    double total = 0;
    for (int32_t i = 0; i < n; i++) {
        total += (double)y[i];
    }
    return total;
}

/* The largest difference between an element of y and a * x + 1 computed here in double precision. */
GUEST_EXPORT("max_error") double max_error(int32_t n, float a) {
    const float *y = compute(n, a);
    if (!y) {
        return __builtin_nan("");
    }
    double largest = 0;
    for (int32_t i = 0; i < n; i++) {
        const double difference = __builtin_fabs((double)y[i] - ((double)a * (double)element_x(i) + 1.0));
        largest = difference > largest ? difference : largest;
    }
    return largest;
}
