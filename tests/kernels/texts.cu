// Texts and sequences.

// Knuth, Morris and Pratt: one thread makes the table in shared memory, each thread reads a piece of the text.
extern "C" __global__ void kmp(const char *text, int n, const char *pattern, int m, int piece, int *places, int *count)
{
    extern __shared__ int fall[];
    if (threadIdx.x == 0) {
        fall[0] = -1;
        for (int i = 0, k = -1; i < m;) {
            while (k >= 0 && pattern[i] != pattern[k]) k = fall[k];
            fall[++i] = ++k;
        }
    }
    __syncthreads();
    int start = (blockIdx.x * blockDim.x + threadIdx.x) * piece, end = min(start + piece + m - 1, n), k = 0;
    for (int i = start; i < end; i++) {
        while (k >= 0 && (k == m || text[i] != pattern[k])) k = fall[k];
        if (++k == m) places[atomicAdd(count, 1)] = i - m + 1;
    }
}

// Boyer, Moore and Horspool: how far to jump by the last letter, a table of bytes that the block makes.
extern "C" __global__ void horspool(const unsigned char *text, int n, const unsigned char *pattern, int m, int piece,
                                    int *places, int *count)
{
    __shared__ unsigned char jump[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) jump[i] = m;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 0; i + 1 < m; i++) jump[pattern[i]] = m - 1 - i;
    __syncthreads();
    int start = (blockIdx.x * blockDim.x + threadIdx.x) * piece, end = min(start + piece, n - m + 1);
    for (int i = start; i < end; i += jump[text[i + m - 1]]) {
        int k = m - 1;
        while (k >= 0 && text[i + k] == pattern[k]) k--;
        if (k < 0) places[atomicAdd(count, 1)] = i;
    }
}

// Myers: edit distance of words of up to 64 letters, all rows of a column in one integer; a thread a pair.
extern "C" __global__ void bit_parallel(const char *words, const int *starts, const char *wanted, int m, int *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long up = ~0ull, down = 0, last = 1ull << (m - 1);
    int score = m;
    for (int at = starts[i]; at < starts[i + 1]; at++) {
        unsigned long long same = 0;
        for (int k = 0; k < m; k++) same |= (unsigned long long)(wanted[k] == words[at]) << k;
        unsigned long long x = same | down, across = ((x & up) + up ^ up) | x;
        unsigned long long more = down | ~(across | up), less = up & across;
        score += (more & last) ? 1 : (less & last) ? -1 : 0;
        more = more << 1 | 1;
        less <<= 1;
        up = less | ~(x | more);
        down = more & x;
    }
    out[i] = score;
}

// Smith and Waterman by diagonals in shared memory, with a gap's start and length weighed apart; one block a pair.
extern "C" __global__ void smith_waterman(const char *a, const char *b, int la, int lb, int *best)
{
    extern __shared__ int rows[];  // 7 rows of la + 1: three of scores, two each of gaps
    int pitch = la + 1, most = 0;
    for (int i = threadIdx.x; i < 7 * pitch; i += blockDim.x) rows[i] = i < 3 * pitch ? 0 : -1000;
    __syncthreads();
    for (int d = 2; d <= la + lb; d++) {
        int *now = rows + d % 3 * pitch, *one = rows + (d + 2) % 3 * pitch, *two = rows + (d + 1) % 3 * pitch;
        int *gap_a = rows + (3 + d % 2) * pitch, *old_a = rows + (3 + (d + 1) % 2) * pitch;
        int *gap_b = rows + (5 + d % 2) * pitch, *old_b = rows + (5 + (d + 1) % 2) * pitch;
        for (int i = threadIdx.x; i <= la; i += blockDim.x) {
            int j = d - i, score = 0;
            if (i >= 1 && j >= 1 && j <= lb) {
                gap_a[i] = max(old_a[i - 1] - 1, one[i - 1] - 3);
                gap_b[i] = max(old_b[i] - 1, one[i] - 3);
                score = two[i - 1] + (a[i - 1] == b[j - 1] ? 2 : -1);
                score = max(max(score, 0), max(gap_a[i], gap_b[i]));
            } else {
                gap_a[i] = gap_b[i] = -1000;
            }
            now[i] = score;
            most = max(most, score);
        }
        __syncthreads();
    }
    atomicMax(best, most);
}

// The longest common subsequence; rows of bytes in local memory, a thread a pair of up to 60 letters.
extern "C" __global__ void common(const char *a, const char *b, int la, int lb, int *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned char row[64];
    for (int k = 0; k <= lb; k++) row[k] = 0;
    for (int p = 0; p < la; p++) {
        unsigned char corner = 0;
        for (int q = 1; q <= lb; q++) {
            unsigned char above = row[q];
            row[q] = a[i * la + p] == b[i * lb + q - 1] ? corner + 1 : max(above, row[q - 1]);
            corner = above;
        }
    }
    out[i] = row[lb];
}

// How many words; how many characters of UTF-8.
extern "C" __global__ void count(const unsigned char *text, int *words, int *characters, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool is_start = false, is_first = false;
    if (i < n) {
        is_start = text[i] > ' ' && (i == 0 || text[i - 1] <= ' ');
        is_first = (text[i] & 0xc0) != 0x80;
    }
    int starts = __syncthreads_count(is_start), firsts = __syncthreads_count(is_first);
    if (threadIdx.x == 0) { atomicAdd(words, starts); atomicAdd(characters, firsts); }
}

__constant__ char letters[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Three bytes to four letters; the last may lack some.
extern "C" __global__ void base64(const unsigned char *in, char *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (3 * i >= n) return;
    int rest = n - 3 * i;
    unsigned bits = in[3 * i] << 16 | (rest > 1 ? in[3 * i + 1] << 8 : 0) | (rest > 2 ? in[3 * i + 2] : 0);
    char4 four = make_char4(letters[bits >> 18], letters[bits >> 12 & 63], letters[bits >> 6 & 63], letters[bits & 63]);
    if (rest < 3) four.w = '=';
    if (rest < 2) four.z = '=';
    ((char4 *)out)[i] = four;
}

// Decimal numbers, with signs, points and exponents; a thread a number.
extern "C" __global__ void parse(const char *text, const int *starts, double *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const char *at = text + starts[i], *end = text + starts[i + 1];
    bool is_negative = false;
    if (at < end && (*at == '-' || *at == '+')) is_negative = *at++ == '-';
    double value = 0;
    int scale = 0;
    for (bool is_past = false; at < end; at++) {
        if (*at == '.') is_past = true;
        else if (*at >= '0' && *at <= '9') { value = value * 10 + (*at - '0'); scale -= is_past; }
        else break;
    }
    if (at < end && (*at | 32) == 'e') {
        bool is_small = *++at == '-';
        int exponent = 0;
        if (*at == '-' || *at == '+') at++;
        for (; at < end; at++) exponent = exponent * 10 + (*at - '0');
        scale += is_small ? -exponent : exponent;
    }
    for (; scale > 0; scale--) value *= 10;
    double divisor = 1;
    for (; scale < 0; scale++) divisor *= 10;
    value /= divisor;
    out[i] = is_negative ? -value : value;
}
