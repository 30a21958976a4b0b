/* A guest without imports and with as little memory as a compiler gives it: what a fresh instance costs at least. */
__attribute__((export_name("noop"))) int noop(void) {
    return 0;
}
