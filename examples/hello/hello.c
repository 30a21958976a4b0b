/* A guest without a kernel: text on stdout, and plain functions. */
#include "guest.h"

/* Writes a line; what a WASI command does when it starts. */
GUEST_EXPORT("_start") void start(void) {
    guest_print(GUEST_STDOUT, "Hello from WebAssembly.\n");
}

GUEST_EXPORT("add") int32_t add(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

/* The n-th Fibonacci number for 0 <= n <= 92; -1, with the reason on stderr, where it would not fit. */
GUEST_EXPORT("fibonacci") int64_t fibonacci(int32_t n) {
    if (n < 0 || n > 92) {
        guest_print(GUEST_STDERR, "fibonacci: n must be from 0 to 92\n");
        return -1;
    }
    int64_t current = 0, next = 1;
    while (n--) {
        const int64_t sum = (int64_t)((uint64_t)current + (uint64_t)next);
        current = next;
        next = sum;
    }
    return current;
}
