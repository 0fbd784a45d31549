/* Which action is best in each posterior draw: `Drawing.best` of optimizer/model/drawing.py, which says what it means.
 *
 * Of each pair of variant and channel only the open slots are worked out, a block of them at a time: what is loaded of
 * the bank serves all of them, and their sums stay in registers.
 */
#include "kernel.h"

#define LANE 16       /* draws that are worked out together; DRAWS_TOGETHER of __init__.py */
#define BLOCK 8       /* slots that are */
#define ROWS 4        /* rows that are */
#define WIDE 8        /* sums of a row alone that registers hold */
#define CLOSED -1e30f /* _CLOSED of drawing.py */
typedef float lane __attribute__((vector_size(4 * LANE), aligned(4)));
typedef int32_t choice __attribute__((vector_size(4 * LANE), aligned(4)));

struct sizes {
    Py_ssize_t rows, variants, slots, channels;
    int no_send;
    Py_ssize_t heads, draws, features, shared; /* shared: time columns that contexts meet, the first of them */
    Py_ssize_t columns;
};

struct bank {
    const float *context, *level, *shared, *time, *bucket;
};

struct row {
    const float *basis, *slope, *reward, *stay;
    const int64_t *hour;
    const uint8_t *mask;
    const double *toll; /* NULL = nothing */
    int64_t *chosen;
};

/* What is held of a row while it is worked out, in one piece: see `held`. */
struct desk {
    float *levels, *of_shared, *times, *top, (*sloped)[BLOCK], (*timed)[BLOCK];
    int32_t *place, *slots;
};

static inline Py_ssize_t pairs_of(const struct sizes *z) { return z->variants * z->channels; }

/* out (count rows of width) = base (width) or 0, plus x (count rows of `features`) times matrix (features, width). What
 * is loaded of the matrix serves all rows, and sums stay in registers; width is a multiple of LANE. */
static inline __attribute__((always_inline)) void product(int count, int lanes, const float *const *x,
                                                          Py_ssize_t features, const float *matrix, Py_ssize_t width,
                                                          Py_ssize_t from, const float *base, float *out)
{
    lane sum[ROWS][WIDE];
    for (int r = 0; r < count; r++)
        for (int l = 0; l < lanes; l++)
            sum[r][l] = base ? *(const lane *)(base + from + l * LANE) : (lane){0};
    for (Py_ssize_t f = 0; f < features; f++)
        for (int l = 0; l < lanes; l++) {
            const lane step = *(const lane *)(matrix + f * width + from + l * LANE);
            for (int r = 0; r < count; r++)
                sum[r][l] += x[r][f] * step;
        }
    for (int r = 0; r < count; r++)
        for (int l = 0; l < lanes; l++)
            *(lane *)(out + r * width + from + l * LANE) = sum[r][l];
}

static inline __attribute__((always_inline)) void products(int count, const float *const *x, Py_ssize_t features,
                                                           const float *matrix, Py_ssize_t width, const float *base,
                                                           float *out)
{
    const int together = count == 1 ? WIDE : WIDE / ROWS;
    Py_ssize_t from = 0;
    for (; from + together * LANE <= width; from += together * LANE)
        product(count, together, x, features, matrix, width, from, base, out);
    for (; from < width; from += LANE)
        product(count, 1, x, features, matrix, width, from, base, out);
}

/* Deviations that contexts make of 1 or ROWS rows: of each pair's level (P, Hw, M), and of the time columns that all
 * pairs share (shared, Hw, M). A row alone is worked out in the same order, so it gets the very bits. */
FOR_EVERY_WIDTH
static void deviations(const struct sizes *z, const struct bank *bank, int count, const float *const *x,
                       struct desk *desk)
{
    const Py_ssize_t each = z->heads * z->draws, levels = pairs_of(z) * each, shared = z->shared * each;
    if (count == 1) {
        products(1, x, z->features, bank->context, levels, bank->level, desk->levels);
        products(1, x, z->features, bank->shared, shared, NULL, desk->of_shared);
    } else {
        products(ROWS, x, z->features, bank->context, levels, bank->level, desk->levels);
        products(ROWS, x, z->features, bank->shared, shared, NULL, desk->of_shared);
    }
}

static inline void add(float *restrict to, const float *restrict from, float times, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        to[i] += times * from[i];
}

/* What contexts and hours of the week change of all pairs at each slot of one row: (S, Hw, M). */
static inline void over_time(const struct sizes *z, const struct bank *bank, const struct row *at,
                             const float *of_shared, float *times)
{
    const Py_ssize_t each = z->heads * z->draws;
    for (Py_ssize_t s = 0; s < z->slots; s++) {
        memcpy(times + s * each, bank->bucket + at->hour[s] * each, (size_t)each * sizeof(float));
        for (Py_ssize_t t = 0; t < z->shared; t++)
            add(times + s * each, of_shared + t * each, at->basis[(t + 1) * z->slots + s], each);
    }
}

/* The open slots of a pair, filled up to whole blocks with the last of them: the same again is no better. */
static inline Py_ssize_t open_slots(const struct sizes *z, const struct row *at, Py_ssize_t pair, int32_t *slots)
{
    const uint8_t *mask = at->mask + pair / z->channels * z->slots * z->channels + pair % z->channels;
    Py_ssize_t count = 0;
    for (Py_ssize_t s = 0; s < z->slots; s++)
        if (mask[s * z->channels])
            slots[count++] = (int32_t)s;
    for (Py_ssize_t k = count; k % BLOCK; k++)
        slots[k] = slots[count - 1];
    return count;
}

/* Of a block of slots: slopes, slope x time column, and the mean reward less the toll. */
static inline void coefficients(const struct sizes *z, const struct row *at, Py_ssize_t pair, const int32_t *slot,
                                struct desk *desk, float *offered)
{
    const Py_ssize_t pairs = pairs_of(z);
    for (Py_ssize_t h = 0; h < z->heads; h++)
        for (int k = 0; k < BLOCK; k++)
            desk->sloped[h][k] = at->slope[(h * pairs + pair) * z->slots + slot[k]];
    for (Py_ssize_t t = 0; t < z->columns; t++) {
        float column[BLOCK];
        for (int k = 0; k < BLOCK; k++)
            column[k] = at->basis[(t + 1) * z->slots + slot[k]];
        for (Py_ssize_t h = 0; h < z->heads; h++)
            for (int k = 0; k < BLOCK; k++)
                desk->timed[h * z->columns + t][k] = desk->sloped[h][k] * column[k];
    }
    for (int k = 0; k < BLOCK; k++) {
        const Py_ssize_t action = (pair / z->channels * z->slots + slot[k]) * z->channels + pair % z->channels;
        const float reward = at->reward[pair * z->slots + slot[k]];
        offered[k] = at->toll ? (float)(reward - at->toll[action]) : reward;
    }
}

/* The best eligible action of each draw of one row; 0 where a drawn reward is not a number or infinite. */
FOR_EVERY_WIDTH
static int best_of_row(const struct sizes *z, const struct bank *bank, const struct row *at, const float *level_of,
                       const float *of_shared, struct desk *desk)
{
    const Py_ssize_t inner = z->heads * z->columns, each = z->heads * z->draws, pairs = pairs_of(z);
    int some = 0;
    choice sound = {0};
    sound = sound == 0;
    for (Py_ssize_t m = 0; m < z->draws; m++) {
        desk->top[m] = CLOSED;
        desk->place[m] = 0;
    }
    over_time(z, bank, at, of_shared, desk->times);
    for (Py_ssize_t pair = 0; pair < pairs; pair++) {
        const Py_ssize_t count = open_slots(z, at, pair, desk->slots);
        const float *time = bank->time + pair * inner * z->draws, *levels = level_of + pair * each;
        some |= count > 0;
        for (Py_ssize_t first = 0; first < count; first += BLOCK) {
            const int32_t *slot = desk->slots + first;
            float offered[BLOCK];
            coefficients(z, at, pair, slot, desk, offered);
            for (Py_ssize_t m = 0; m < z->draws; m += LANE) {
                lane drawn[BLOCK];
                for (int k = 0; k < BLOCK; k++)
                    drawn[k] = (lane){0} + offered[k];
                for (Py_ssize_t i = 0; i < inner; i++) {
                    const lane step = *(const lane *)(time + i * z->draws + m);
                    for (int k = 0; k < BLOCK; k++)
                        drawn[k] += desk->timed[i][k] * step;
                }
                for (Py_ssize_t h = 0; h < z->heads; h++) {
                    const lane level = *(const lane *)(levels + h * z->draws + m);
                    for (int k = 0; k < BLOCK; k++) {
                        const float *moved = desk->times + slot[k] * each + h * z->draws + m;
                        drawn[k] += desk->sloped[h][k] * (level + *(const lane *)moved);
                    }
                }
                lane top = *(lane *)(desk->top + m);
                choice place = *(choice *)(desk->place + m);
                for (int k = 0; k < BLOCK; k++) {
                    const choice better = drawn[k] > top;
                    const choice here = (choice){0} + (int32_t)(pair * z->slots + slot[k]);
                    top = (lane)(((choice)drawn[k] & better) | ((choice)top & ~better));
                    place = (here & better) | (place & ~better);
                    sound &= drawn[k] < INFINITY;
                }
                *(lane *)(desk->top + m) = top;
                *(choice *)(desk->place + m) = place;
            }
        }
    }
    int finite = 1;
    for (int i = 0; i < LANE; i++)
        finite &= sound[i] != 0;
    const Py_ssize_t messages = pairs * z->slots;
    const int may_stay = z->no_send && at->mask[messages];
    for (Py_ssize_t m = 0; m < z->draws; m++) {
        const Py_ssize_t pair = desk->place[m] / z->slots, slot = desk->place[m] % z->slots;
        const float stay = may_stay && at->toll ? at->stay[m] - (float)at->toll[messages] : at->stay[m];
        const int stays = may_stay && (stay > desk->top[m] || !some);
        at->chosen[m] = stays ? messages : (pair / z->channels * z->slots + slot) * z->channels + pair % z->channels;
        finite &= isfinite(stays ? stay : desk->top[m]) != 0;
    }
    return finite;
}

/* Lays out what a row needs; NULL where there is no memory. What comes back is to be freed. */
static void *held(const struct sizes *z, struct desk *desk)
{
    const size_t each = (size_t)(z->heads * z->draws), blocks = (size_t)(z->heads * (z->columns + 1)) * BLOCK;
    const size_t counts[] = {ROWS * (size_t)pairs_of(z) * each, ROWS * (size_t)z->shared * each, (size_t)z->slots * each,
                             (size_t)z->draws,           blocks,                   (size_t)z->draws,
                             (size_t)z->slots + BLOCK};
    size_t all = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        all += counts[i];
    float *piece = PyMem_Malloc(all * sizeof *piece);
    if (!piece)
        return NULL;
    desk->levels = piece;
    desk->of_shared = desk->levels + counts[0];
    desk->times = desk->of_shared + counts[1];
    desk->top = desk->times + counts[2];
    desk->sloped = (float(*)[BLOCK])(desk->top + counts[3]);
    desk->timed = desk->sloped + z->heads;
    desk->place = (int32_t *)(desk->top + counts[3] + counts[4]);
    desk->slots = desk->place + counts[5];
    return piece;
}

PyObject *kernel_best(PyObject *module, PyObject *args)
{
    enum { X, BASIS, HOUR, SLOPE, REWARD, STAY, MASK, TOLL, CONTEXT, LEVEL, SHARED, TIME, BUCKET, CHOSEN, ALL };
    Py_buffer b[ALL];
    struct sizes z;
    (void)module;
    if (!PyArg_ParseTuple(args, "(nnnnpnnnnn)y*y*y*y*y*y*y*z*y*y*y*y*y*w*", &z.rows, &z.variants, &z.slots, &z.channels,
                          &z.no_send, &z.heads, &z.draws, &z.features, &z.shared, &z.columns, b + X, b + BASIS, b + HOUR,
                          b + SLOPE, b + REWARD, b + STAY, b + MASK, b + TOLL, b + CONTEXT, b + LEVEL, b + SHARED,
                          b + TIME, b + BUCKET, b + CHOSEN))
        return NULL;
    const struct bank bank = {b[CONTEXT].buf, b[LEVEL].buf, b[SHARED].buf, b[TIME].buf, b[BUCKET].buf};
    const Py_ssize_t messages = pairs_of(&z) * z.slots, size = messages + z.no_send;
    struct desk desk;
    void *piece = held(&z, &desk);
    int finite = 1;
    for (Py_ssize_t i = 0; piece && i < z.rows; i++) {
        const Py_ssize_t left = z.rows - i / ROWS * ROWS, levels = pairs_of(&z) * z.heads * z.draws;
        const Py_ssize_t shared = z.shared * z.heads * z.draws, place = left < ROWS ? 0 : i % ROWS;
        if (!place) {
            const float *x[ROWS];
            for (int r = 0; r < ROWS; r++)
                x[r] = (const float *)b[X].buf + (left < ROWS ? i : i + r) * z.features;
            deviations(&z, &bank, left < ROWS ? 1 : ROWS, x, &desk);
        }
        const struct row at = {
            .basis = (const float *)b[BASIS].buf + i * (z.columns + 1) * z.slots,
            .slope = (const float *)b[SLOPE].buf + i * z.heads * messages,
            .reward = (const float *)b[REWARD].buf + i * messages,
            .stay = (const float *)b[STAY].buf + i * z.draws,
            .hour = (const int64_t *)b[HOUR].buf + i * z.slots,
            .mask = (const uint8_t *)b[MASK].buf + i * size,
            .toll = b[TOLL].buf ? (const double *)b[TOLL].buf + i * size : NULL,
            .chosen = (int64_t *)b[CHOSEN].buf + i * z.draws,
        };
        finite &= best_of_row(&z, &bank, &at, desk.levels + place * levels, desk.of_shared + place * shared, &desk);
    }
    PyMem_Free(piece);
    for (int i = 0; i < ALL; i++)
        PyBuffer_Release(b + i);
    return piece ? PyBool_FromLong(finite) : PyErr_NoMemory();
}
