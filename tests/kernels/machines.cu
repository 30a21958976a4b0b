// Threads that go each their own way: interpreters, stacks in local memory, tables of states.

struct Step { unsigned char code, to, a, b; int value; };

// Runs a small program on eight registers: a switch in a loop, a thread a set of inputs.
extern "C" __global__ void interpret(const Step *program, const int *inputs, int *out, int limit, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int r[8] = {inputs[i], i, 0, 0, 0, 0, 0, 0}, at = 0, steps = 0;
    for (; steps < limit; steps++) {
        Step s = program[at++];
        int a = r[s.a & 7], b = r[s.b & 7], v = 0;
        bool is_kept = true;
        switch (s.code) {
        case 0: v = s.value; break;
        case 1: v = a + b; break;
        case 2: v = a - b; break;
        case 3: v = a * b; break;
        case 4: v = b ? a / b : 0; break;
        case 5: v = a & b; break;
        case 6: v = a ^ b; break;
        case 7: v = (unsigned)a >> (b & 31); break;
        case 8: v = a < b; break;
        case 9: v = max(a, b); break;
        case 10: is_kept = false; if (a) at = s.value; break;
        case 11: is_kept = false; at = s.value; break;
        default: goto done;
        }
        if (is_kept) r[s.to & 7] = v;
    }
done:
    out[2 * i] = r[2];
    out[2 * i + 1] = steps;
}

// How many ways to place queens, by going back; a thread a place of the first two. Sizes up to 12.
extern "C" __global__ void queens(int size, unsigned long long *ways)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size * size) return;
    int full = (1 << size) - 1, a = 1 << i / size, b = 1 << i % size;
    if (size < 2 || ((a | a << 1 | a >> 1) & b)) return;
    int stack[12][4], depth = 0, found = 0;
    int columns = a | b, left = ((a << 1) | b) << 1 & full, right = ((a >> 1) | b) >> 1;
    int free_now = full & ~(columns | left | right);
    int rows = 2;
    if (rows == size) found = 1;
    else while (true) {
        if (free_now) {
            int bit = free_now & -free_now;
            free_now ^= bit;
            if (rows + 1 == size) { found++; continue; }
            stack[depth][0] = free_now;
            stack[depth][1] = columns;
            stack[depth][2] = left;
            stack[depth++][3] = right;
            columns |= bit;
            left = (left | bit) << 1 & full;
            right = (right | bit) >> 1;
            free_now = full & ~(columns | left | right);
            rows++;
        } else if (depth) {
            free_now = stack[--depth][0];
            columns = stack[depth][1];
            left = stack[depth][2];
            right = stack[depth][3];
            rows--;
        } else break;
    }
    if (found) atomicAdd(ways, (unsigned long long)found);
}

// Quicksort of a row a thread, with a stack of bounds.
extern "C" __global__ void quicksort(int *rows, int width, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int *x = rows + i * width;
    short bounds[32];
    int top = 0;
    bounds[top++] = 0;
    bounds[top++] = width - 1;
    while (top) {
        int high = bounds[--top], low = bounds[--top];
        while (low < high) {
            int pivot = x[(low + high) / 2], a = low, b = high;
            while (a <= b) {
                while (x[a] < pivot) a++;
                while (x[b] > pivot) b--;
                if (a <= b) { int t = x[a]; x[a++] = x[b]; x[b--] = t; }
            }
            if (b - low > high - a) {
                bounds[top++] = low;
                bounds[top++] = b;
                low = a;
            } else {
                if (a < high) { bounds[top++] = a; bounds[top++] = high; }
                high = b;
            }
        }
    }
}

// Rays on spheres, with mirrors: which was hit first, and how bright it is.
extern "C" __global__ void rays(const float4 *spheres, int count, float *bright, int *first, int width, int height)
{
    int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
    if (px >= width || py >= height) return;
    float dx = (px - width * 0.5f) / width, dy = (py - height * 0.5f) / width, dz = 1;
    float inverse = 1 / sqrtf(dx * dx + dy * dy + dz * dz), x = 0, y = 0, z = 0, share = 1, sum = 0;
    dx *= inverse; dy *= inverse; dz *= inverse;
    int seen = -1;
    for (int bounce = 0; bounce < 4; bounce++) {
        float nearest = 1e30f;
        int which = -1;
        for (int s = 0; s < count; s++) {
            float4 ball = spheres[s];
            float ox = ball.x - x, oy = ball.y - y, oz = ball.z - z;
            float along = ox * dx + oy * dy + oz * dz, rest = ox * ox + oy * oy + oz * oz - ball.w * ball.w;
            float inside = along * along - rest;
            if (inside < 0) continue;
            float t = along - sqrtf(inside);
            if (t > 1e-3f && t < nearest) { nearest = t; which = s; }
        }
        if (bounce == 0) seen = which;
        if (which < 0) { sum += share * (0.5f + 0.5f * dy); break; }
        float4 ball = spheres[which];
        x += dx * nearest; y += dy * nearest; z += dz * nearest;
        float nx = (x - ball.x) / ball.w, ny = (y - ball.y) / ball.w, nz = (z - ball.z) / ball.w;
        sum += share * 0.4f * fmaxf(0.0f, -ny);
        share *= 0.5f;
        float turn = 2 * (dx * nx + dy * ny + dz * nz);
        dx -= turn * nx; dy -= turn * ny; dz -= turn * nz;
    }
    bright[py * width + px] = sum;
    first[py * width + px] = seen;
}

// A machine of states by a table of bytes in shared memory: whether texts match.
extern "C" __global__ void automaton(const unsigned char *table, int states, const unsigned char *text, const int *starts,
                                     unsigned char *last, int n)
{
    extern __shared__ unsigned char next[];  // 4 classes a state
    for (int i = threadIdx.x; i < 4 * states; i += blockDim.x) next[i] = table[i];
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int state = 0;
    for (int at = starts[i]; at < starts[i + 1]; at++) {
        unsigned char c = text[at];
        int kind = c >= '0' && c <= '9' ? 0 : c == '-' || c == '+' ? 1 : c == '.' ? 2 : 3;
        state = next[4 * state + kind];
    }
    last[i] = state;
}

struct Node { short child[2]; unsigned char letter, is_leaf; };

// Huffman's code, decoded bit by bit along a tree; a thread a piece.
extern "C" __global__ void huffman(const Node *tree, const unsigned *bits, const int *starts, const int *lengths,
                                   unsigned char *out, int width, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int node = 0, to = 0;
    for (int at = starts[i]; at < starts[i] + lengths[i]; at++) {
        node = tree[node].child[bits[at >> 5] >> (at & 31) & 1];
        if (tree[node].is_leaf) { out[i * width + to++] = tree[node].letter; node = 0; }
    }
    while (to < width) out[i * width + to++] = 0;
}

// Copies of what came before, as packers write it: pairs of a count of letters and a reference, a thread a piece.
extern "C" __global__ void unpack(const unsigned char *packed, const int *starts, unsigned char *out, int *sizes, int width,
                                  int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned char *at = packed + starts[i], *end = packed + starts[i + 1];
    unsigned char *line = out + i * width;
    int size = 0;
    while (at < end) {
        int letters = *at >> 4, copy = *at & 15;
        at++;
        while (letters--) line[size++] = *at++;
        if (copy) {
            int back = *at++;
            for (; copy; copy--, size++) line[size] = line[size - back];
        }
    }
    sizes[i] = size;
}

// A walk over a board that turns by the colour under it; one thread a board.
extern "C" __global__ void ants(unsigned *boards, int side, int steps, int2 *ends, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned *board = boards + i * side;  // a word a row, up to 32 wide
    int x = i % side, y = side / 2, way = 0;
    for (int s = 0; s < steps; s++) {
        bool is_black = board[y] >> x & 1;
        board[y] ^= 1u << x;
        way = way + (is_black ? 3 : 1) & 3;
        switch (way) {
        case 0: y = y ? y - 1 : side - 1; break;
        case 1: x = x + 1 < side ? x + 1 : 0; break;
        case 2: y = y + 1 < side ? y + 1 : 0; break;
        case 3: x = x ? x - 1 : side - 1; break;
        }
    }
    ends[i] = make_int2(x, y);
}
