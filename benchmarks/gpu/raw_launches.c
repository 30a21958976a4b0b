/* What a launch costs with nothing of ours around it: launches of an empty kernel, each followed by a wait.
 *
 *     cc -O2 -o raw_launches raw_launches.c -ldl && ./raw_launches GPU COUNT
 *
 * Prints JSON: percentiles in microseconds of two ways to wait, for the stream and, as a worker does, for a word that the
 * GPU writes to pinned memory. The driver's library is opened as the program starts, so that building needs no CUDA. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SCHEDULE_SPIN = 1, STREAM_NON_BLOCKING = 1, HOST_PORTABLE_MAPPED = 3, WARM_UP = 1000 };

/* A function of the driver, by its name and the types of its parameters. */
#define DRIVER(name, ...) ((int (*)(__VA_ARGS__))find(name))

static void *library;

static void *find(const char *name) {
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "the driver has no %s\n", name);
        exit(2);
    }
    return found;
}

static void must(int code, const char *what) {
    if (code) {
        fprintf(stderr, "%s: %d\n", what, code);
        exit(2);
    }
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print(const char *name, uint64_t *samples, int count, const char *end) {
    qsort(samples, (size_t)count, sizeof *samples, by_value);
    printf("\"%s\": {\"p50\": %.3f, \"p95\": %.3f, \"p99\": %.3f}%s", name, samples[count / 2] / 1e3,
           samples[(int)(count * 0.95)] / 1e3, samples[(int)(count * 0.99)] / 1e3, end);
}

static const char text[] = ".version 8.0\n.target sm_52\n.address_size 64\n.visible .entry empty()\n{\n    ret;\n}\n";

int main(int argc, char **argv) {
    int gpu = argc > 1 ? atoi(argv[1]) : 0, count = argc > 2 ? atoi(argv[2]) : 50000;
    library = dlopen(getenv("RAW_LAUNCHES_LIBRARY") ? getenv("RAW_LAUNCHES_LIBRARY") : "libcuda.so.1", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
    int device;
    void *context, *module, *function, *stream, *host;
    uint64_t seen;
    must(DRIVER("cuInit", unsigned)(0), "cuInit");
    must(DRIVER("cuDeviceGet", int *, int)(&device, gpu), "cuDeviceGet");
    must(DRIVER("cuDevicePrimaryCtxSetFlags_v2", int, unsigned)(device, SCHEDULE_SPIN), "cuDevicePrimaryCtxSetFlags");
    must(DRIVER("cuDevicePrimaryCtxRetain", void **, int)(&context, device), "cuDevicePrimaryCtxRetain");
    must(DRIVER("cuCtxSetCurrent", void *)(context), "cuCtxSetCurrent");
    must(DRIVER("cuModuleLoadData", void **, const void *)(&module, text), "cuModuleLoadData");
    must(DRIVER("cuModuleGetFunction", void **, void *, const char *)(&function, module, "empty"), "cuModuleGetFunction");
    must(DRIVER("cuStreamCreate", void **, unsigned)(&stream, STREAM_NON_BLOCKING), "cuStreamCreate");
    must(DRIVER("cuMemHostAlloc", void **, size_t, unsigned)(&host, 4096, HOST_PORTABLE_MAPPED), "cuMemHostAlloc");
    must(DRIVER("cuMemHostGetDevicePointer_v2", uint64_t *, void *, unsigned)(&seen, host, 0), "cuMemHostGetDevicePointer");
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **) =
        find("cuLaunchKernel");
    int (*wait)(void *) = find("cuStreamSynchronize");
    int (*write)(void *, uint64_t, uint32_t, unsigned) = find("cuStreamWriteValue32_v2");
    uint64_t *samples = malloc(sizeof *samples * (size_t)count);
    if (!samples || count < 1) {
        return 2;
    }
    for (int i = -WARM_UP; i < count; i++) {
        uint64_t before = now_ns();
        must(launch(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
        must(wait(stream), "cuStreamSynchronize");
        if (i >= 0) {
            samples[i] = now_ns() - before;
        }
    }
    printf("{\"count\": %d, ", count);
    print("synchronize", samples, count, ", ");
    volatile uint32_t *word = host;
    *word = 0;
    for (int i = -WARM_UP; i < count; i++) {
        uint32_t number = (uint32_t)(i + WARM_UP + 1);
        uint64_t before = now_ns();
        must(launch(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
        must(write(stream, seen, number, 0), "cuStreamWriteValue32");
        while (*word != number) {
        }
        if (i >= 0) {
            samples[i] = now_ns() - before;
        }
    }
    print("written word", samples, count, "}\n");
    return 0;
}
