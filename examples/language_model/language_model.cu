// One step of the model: the next state from the last one and a character, and from a state how likely each character
// comes next. Sums of products are integers, and what follows is rounded after each operation (no fused multiply-add),
// so that the same weights give the same bits everywhere. reference.py computes the same in NumPy.

enum { UNITS = 160, GATES = 3 * UNITS, CHARACTERS = 48 };

// weights.bin, written by weights.py. Matrices are bytes; a column's real weights are its bytes times its scale.
struct Weights {
    float input_scale[GATES];
    float state_scale[GATES];
    float input_bias[GATES];
    float state_bias[GATES];
    float output_scale[CHARACTERS];
    float output_bias[CHARACTERS];
    signed char input[CHARACTERS][GATES];
    signed char state[UNITS][GATES];
    signed char output[UNITS][CHARACTERS];
};

// x(27 + x^2) / (27 + 9x^2) between -3 and 3: a tanh without an exponential.
__device__ static float soft_sign(float x) {
    x = fminf(fmaxf(x, -3.0f), 3.0f);
    const float square = __fmul_rn(x, x);
    return __fdiv_rn(__fmul_rn(x, __fadd_rn(27.0f, square)), __fadd_rn(27.0f, __fmul_rn(9.0f, square)));
}

__device__ static float sigmoid(float x) {
    return __fadd_rn(0.5f, __fmul_rn(0.5f, soft_sign(__fmul_rn(x, 0.5f))));
}

// A block of UNITS threads, one for each unit. A state is UNITS numbers of 16 bits: -1 to 1 as -32767 to 32767.
extern "C" __global__ void gru(const Weights *__restrict__ weights, int character, const short *__restrict__ state,
                               short *__restrict__ next) {
    const int unit = threadIdx.x;
    int update_sum = 0, reset_sum = 0, new_sum = 0;
    for (int i = 0; i < UNITS; i++) {
        const int value = state[i];
        update_sum += value * weights->state[i][unit];
        reset_sum += value * weights->state[i][UNITS + unit];
        new_sum += value * weights->state[i][2 * UNITS + unit];
    }
    const int sums[3] = {update_sum, reset_sum, new_sum};
    float of_input[3], of_state[3];
    for (int gate = 0; gate < 3; gate++) {
        const int column = gate * UNITS + unit;
        of_input[gate] = __fadd_rn(__fmul_rn((float)weights->input[character][column], weights->input_scale[column]),
                                   weights->input_bias[column]);
        of_state[gate] = __fadd_rn(__fmul_rn((float)sums[gate], weights->state_scale[column]),
                                   weights->state_bias[column]);
    }
    const float update = sigmoid(__fadd_rn(of_input[0], of_state[0]));
    const float reset = sigmoid(__fadd_rn(of_input[1], of_state[1]));
    const float fresh = soft_sign(__fadd_rn(of_input[2], __fmul_rn(reset, of_state[2])));
    const float last = __fmul_rn((float)state[unit], 1.0f / 32767.0f);
    const float value = __fadd_rn(fresh, __fmul_rn(update, __fsub_rn(last, fresh)));
    next[unit] = (short)__float2int_rn(__fmul_rn(value, 32767.0f));
}

// A block of CHARACTERS threads: the logit of each character.
extern "C" __global__ void logits(const Weights *__restrict__ weights, const short *__restrict__ state,
                                  float *__restrict__ out) {
    const int character = threadIdx.x;
    int sum = 0;
    for (int i = 0; i < UNITS; i++) {
        sum += state[i] * weights->output[i][character];
    }
    out[character] = __fadd_rn(__fmul_rn((float)sum, weights->output_scale[character]),
                               weights->output_bias[character]);
}
