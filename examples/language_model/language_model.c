/* Text, a character at a time: a small recurrent model whose sums of products are CUDA kernels. It answers the OpenAI
 * routes of a node: its input is lines of parameters, an empty line and the prompt, its output is chunks. */
#include "guest.h"
#include "wasi_cuda.h"

enum {
    UNITS = 160,
    CHARACTERS = 48,
    CONTEXT_BYTES = 2048, /* of the prompt's end are read */
};

static const char ptx[] = {
#embed "language_model.ptx"
};

/* As struct Weights in language_model.cu; the characters that the model knows are its last bytes. */
__attribute__((aligned(64))) static const char weights[] = {
#embed "weights.bin"
};
static const unsigned char *const known = (const unsigned char *)weights + sizeof weights - CHARACTERS;

static int64_t gru, logits;
static int16_t states[2][UNITS];
static int now; /* which of both is the state */
static float likely[CHARACTERS];

/* Tell why on stderr, which is part of the caller's error, and trap. */
_Noreturn static void fail(const char *what) {
    char text[512];
    const int32_t bytes = wasi_cuda_last_error_copy(text, sizeof text);
    guest_print(GUEST_STDERR, "language_model: ");
    guest_print(GUEST_STDERR, what);
    if (bytes > 0) {
        guest_print(GUEST_STDERR, ": ");
        guest_write(GUEST_STDERR, text, (size_t)bytes);
    }
    guest_print(GUEST_STDERR, "\n");
    __builtin_trap();
}

/* --- the model --------------------------------------------------------------------------------------------------- */

static void launch(int64_t kernel, int32_t threads, const wasi_cuda_argv *argv) {
    if (wasi_cuda_run(kernel, (wasi_cuda_dim3){1, 1, 1}, (wasi_cuda_dim3){threads, 1, 1}, 0, argv)) {
        fail("a launch was refused");
    }
}

static void advance(int character) {
    wasi_cuda_argv argv = {0};
    wasi_cuda_arg_pointer(&argv, weights, sizeof weights);
    wasi_cuda_arg_i32(&argv, character);
    wasi_cuda_arg_pointer(&argv, states[now], sizeof states[now]);
    wasi_cuda_arg_pointer(&argv, states[1 - now], sizeof states[1 - now]);
    launch(gru, UNITS, &argv);
    now = 1 - now;
}

static void look_ahead(void) {
    wasi_cuda_argv argv = {0};
    wasi_cuda_arg_pointer(&argv, weights, sizeof weights);
    wasi_cuda_arg_pointer(&argv, states[now], sizeof states[now]);
    wasi_cuda_arg_pointer(&argv, likely, sizeof likely);
    launch(logits, CHARACTERS, &argv);
}

static int find(int byte) {
    for (int i = 0; i < CHARACTERS && known[i]; i++) {
        if (known[i] == byte) {
            return i;
        }
    }
    return -1;
}

/* Read a byte of the prompt. What the model has not is a small letter to it, or else a space. */
static void read_byte(unsigned char byte) {
    if (byte >= 0x80 && byte < 0xc0) {
        return; /* not the first byte of its character */
    }
    int character = find(byte);
    if (character < 0 && byte >= 'A' && byte <= 'Z') {
        character = find(byte | 0x20);
    }
    advance(character < 0 ? find(' ') : character);
}

/* --- chance ------------------------------------------------------------------------------------------------------ */

/* splitmix64, as a number from 0 to 1. */
static double roll(uint64_t *seed) {
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* e to the x, for x up to 0, by additions and multiplications only: reference.py has the same bits. */
static double exponential(double x) {
    if (x < -700) {
        return 0;
    }
    const double power = __builtin_floor(x * 1.4426950408889634 + 0.5);
    const double rest = x - power * 0.6931471805599453;
    static const double factorials[] = {6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0,
                                        720.0,        120.0,       24.0,       6.0,       2.0,      1.0,     1.0};
    double total = 0;
    for (int i = 0; i < 14; i++) {
        total = total * rest + 1 / factorials[i];
    }
    const uint64_t bits = (uint64_t)(1023 + (int64_t)power) << 52;
    double scale;
    __builtin_memcpy(&scale, &bits, sizeof scale);
    return total * scale;
}

/* The next character: the likeliest when it is cold, else one of the likeliest that together have top_p. */
static int choose(double temperature, double top_p, uint64_t *seed) {
    int best = 0;
    for (int i = 1; i < CHARACTERS; i++) {
        best = likely[i] > likely[best] ? i : best;
    }
    if (temperature < 0.001) {
        return best;
    }
    double chances[CHARACTERS];
    int order[CHARACTERS]; /* by falling chance */
    for (int i = 0; i < CHARACTERS; i++) {
        chances[i] = exponential(((double)likely[i] - (double)likely[best]) / temperature);
        int at = i;
        for (; at > 0 && chances[order[at - 1]] < chances[i]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    double total = 0, kept = 0;
    for (int i = 0; i < CHARACTERS; i++) {
        total += chances[order[i]];
    }
    int count = 0;
    while (count < CHARACTERS && (count == 0 || kept < top_p * total)) {
        kept += chances[order[count++]];
    }
    double left = roll(seed) * kept;
    for (int i = 0; i < count; i++) {
        left -= chances[order[i]];
        if (left < 0) {
            return order[i];
        }
    }
    return order[count - 1];
}

/* --- the input --------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *at, *end;
} span;

/* The value of a parameter: what follows "name: " in one of the lines. */
static span value_of(span lines, const char *name) {
    for (const char *line = lines.at; line < lines.end;) {
        const char *end = line;
        while (end < lines.end && *end != '\n') {
            end++;
        }
        const char *at = line;
        const char *wanted = name;
        while (*wanted && at < end && *at == *wanted) {
            at++;
            wanted++;
        }
        if (!*wanted && end - at >= 2 && at[0] == ':' && at[1] == ' ') {
            return (span){at + 2, end};
        }
        line = end + 1;
    }
    fail("the input has not the lines it should have; call this model by /v1/completions");
}

static int64_t whole_number(span text) {
    const int is_negative = text.at < text.end && *text.at == '-';
    uint64_t value = 0;
    for (const char *at = text.at + is_negative; at < text.end && *at >= '0' && *at <= '9'; at++) {
        value = value * 10 + (uint64_t)(*at - '0');
    }
    return (int64_t)(is_negative ? -value : value);
}

/* A number with six digits after its point. */
static double number(span text) {
    uint64_t millionths = 0;
    for (const char *at = text.at; at < text.end; at++) {
        if (*at != '.') {
            millionths = millionths * 10 + (uint64_t)(*at - '0');
        }
    }
    return (double)millionths / 1e6;
}

/* The lines, and what stands behind the empty line that ends them. */
static span split(span *input) {
    for (const char *at = input->at; at + 1 < input->end; at++) {
        if (at[0] == '\n' && at[1] == '\n') {
            const span prompt = {at + 2, input->end};
            input->end = at + 1;
            return prompt;
        }
    }
    fail("the input has no empty line; call this model by /v1/completions");
}

GUEST_EXPORT("run") void run(void) {
    const int32_t bytes = wasi_tensor_input_len();
    char *const text = guest_arena((uint64_t)bytes);
    if (!text) {
        fail("no memory for this prompt");
    }
    wasi_tensor_read_input(text, (size_t)bytes);
    span lines = {text, text + bytes};
    span prompt = split(&lines);
    const int64_t max_tokens = whole_number(value_of(lines, "max_tokens"));
    const double temperature = number(value_of(lines, "temperature"));
    const double top_p = number(value_of(lines, "top_p"));
    uint64_t seed = (uint64_t)whole_number(value_of(lines, "seed"));

    gru = wasi_cuda_load(ptx, sizeof ptx, "gru");
    logits = wasi_cuda_load(ptx, sizeof ptx, "logits");
    if (gru < 0 || logits < 0) {
        fail("the kernels cannot be loaded");
    }
    read_byte('\n');
    read_byte('\n');
    if (prompt.end - prompt.at > CONTEXT_BYTES) {
        prompt.at = prompt.end - CONTEXT_BYTES;
    }
    for (const char *at = prompt.at; at < prompt.end; at++) {
        read_byte((unsigned char)*at);
    }
    for (int64_t i = 0; i < max_tokens; i++) {
        look_ahead();
        const int character = choose(temperature, top_p, &seed);
        if (known[character] == '\n' || wasi_tensor_emit_chunk(&known[character], 1)) {
            return; /* the end of the line, or nobody listens any more */
        }
        advance(character);
    }
}
