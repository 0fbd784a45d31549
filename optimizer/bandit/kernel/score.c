/* What the heads say of every action, and of not sending: `_means` and `_staying` of optimizer/model/scoring.py, which
 * says what they mean. Time columns are those of optimizer/model/timefeatures.py. */
#include "kernel.h"

#define HOUR 3600
#define DAY (24 * HOUR)
#define WEEK (7 * DAY)
#define HOURS 168      /* of the week */
#define SATURDAY (5 * DAY)
#define TO_MONDAY (3 * DAY) /* 1970-01-01 was a Thursday */
#define TURN 6.283185307179586
#define WEEKDAYS 6 /* columns of the seven weekdays */
#define COLUMNS 23

struct tower {
    Py_ssize_t heads, pairs, slots, features, shared, steps, weighted;
    const double *context, *time, *shared_time, *bucket, *worth, *cost;
    const int64_t *step, *which;
};

struct asked {
    const float *x;
    const double *own; /* NULL = nothing */
    const int64_t *local;
    int64_t *hour;
    double *basis, *chance, *reward;
    float *short_basis, *slope;
};

/* The weekdays' columns on Monday to Sunday. */
static void fill_weekdays(double table[7][WEEKDAYS])
{
    for (int d = 0; d < 7; d++)
        for (int k = 1; k <= WEEKDAYS / 2; k++) {
            table[d][2 * k - 2] = cos(TURN / 7.0 * (double)(k * d));
            table[d][2 * k - 1] = sin(TURN / 7.0 * (double)(k * d));
        }
}

/* Time columns of one row's slots, (1 + COLUMNS, S) with a row of ones first, and their hours of the week. */
static void columns_of_row(const struct asked *at, Py_ssize_t slots, double weekdays[7][WEEKDAYS])
{
    for (Py_ssize_t s = 0; s < slots; s++) {
        const int64_t rest = (at->local[s] + TO_MONDAY) % WEEK, second = rest < 0 ? rest + WEEK : rest;
        const double day = TURN / DAY * (double)(second % DAY), week = TURN / WEEK * (double)second;
        const double angle[] = {day, 2.0 * day, 3.0 * day, 4.0 * day, week, 2.0 * week};
        double pair[12], column[1 + COLUMNS];
        for (int i = 0; i < 6; i++) {
            pair[2 * i] = cos(angle[i]);
            pair[2 * i + 1] = sin(angle[i]);
        }
        column[0] = 1.0;
        memcpy(column + 1, pair, 4 * sizeof(double));
        column[5] = (second >= SATURDAY) - 2.0 / 7.0;
        for (int i = 0; i < 4; i++)
            column[6 + i] = column[5] * pair[i];
        memcpy(column + 10, pair + 4, 4 * sizeof(double));
        memcpy(column + 14, weekdays[second / DAY], WEEKDAYS * sizeof(double));
        memcpy(column + 14 + WEEKDAYS, pair + 8, 4 * sizeof(double));
        at->hour[s] = second / HOUR;
        for (int t = 0; t <= COLUMNS; t++) {
            at->basis[t * slots + s] = column[t];
            at->short_basis[t * slots + s] = (float)column[t];
        }
    }
}

/* Logistic function. e^-x = 2^n e^r with |r| <= ln 2 / 2, e^r by its Taylor series: the 14th term is 4e-18 at most. */
static inline void sigmoid(double *x, Py_ssize_t count)
{
    static const double factor[] = {1.0,           1.0,           1.0 / 2,        1.0 / 6,         1.0 / 24,
                                    1.0 / 120,     1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                                    1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    const double whole = 6755399441055744.0; /* 1.5 * 2^52: adding it leaves the nearest integer in the last bits */
    for (Py_ssize_t i = 0; i < count; i++) {
        const double y = -x[i] > 700.0 ? 700.0 : -x[i] < -700.0 ? -700.0 : -x[i];
        const double shifted = y * 1.4426950408889634 + whole, n = shifted - whole;
        const double r = (y - n * 0.6931471803691238) - n * 1.9082149292705877e-10; /* ln 2 in two parts */
        double e = factor[13];
        for (int k = 12; k >= 0; k--)
            e = e * r + factor[k];
        int64_t bits;
        double power;
        memcpy(&bits, &shifted, sizeof bits);
        bits = (int64_t)((uint64_t)bits << 52) + 0x3ff0000000000000;
        memcpy(&power, &bits, sizeof power);
        x[i] = 1.0 / (1.0 + e * power);
    }
}

static inline double dot(const double *a, const float *x, Py_ssize_t count)
{
    double sum[4] = {0.0};
    Py_ssize_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; k++)
            sum[k] += a[i + k] * x[i + k];
    for (; i < count; i++)
        sum[0] += a[i] * x[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Chances of all outcomes, expected rewards and the slopes that draws are taken at, for one row. */
FOR_EVERY_WIDTH
static void score_of_row(const struct tower *w, const struct asked *at, double *restrict met, double *restrict rest)
{
    const Py_ssize_t slots = w->slots, actions = w->pairs * slots, width = COLUMNS + 1;
    for (Py_ssize_t i = 0; i < w->heads * w->shared; i++)
        met[i] = dot(w->shared_time + i * w->features, at->x, w->features);
    for (Py_ssize_t h = 0; h < w->heads; h++)
        for (Py_ssize_t p = 0; p < w->pairs; p++) {
            const double *time = w->time + (h * w->pairs + p) * width;
            double *eta = at->chance + (h * w->pairs + p) * slots;
            const double level = time[0] + dot(w->context + (h * w->pairs + p) * w->features, at->x, w->features);
            for (Py_ssize_t s = 0; s < slots; s++)
                eta[s] = level + w->bucket[h * HOURS + at->hour[s]] + (at->own ? at->own[h * slots + s] : 0.0);
            for (Py_ssize_t t = 1; t < width; t++) {
                const double *basis = at->basis + t * slots;
                const double moved = time[t] + (t <= w->shared ? met[h * w->shared + t - 1] : 0.0);
                for (Py_ssize_t s = 0; moved != 0.0 && s < slots; s++)
                    eta[s] += moved * basis[s];
            }
        }
    sigmoid(at->chance, w->heads * actions);
    for (Py_ssize_t i = 0; i < w->heads * actions; i++)
        rest[i] = 1.0 - at->chance[i];
    for (Py_ssize_t k = 0; k < w->steps; k++) {
        double *then = at->chance + w->step[2 * k] * actions;
        const double *before = at->chance + w->step[2 * k + 1] * actions;
        for (Py_ssize_t a = 0; a < actions; a++)
            then[a] *= before[a];
    }
    for (Py_ssize_t p = 0; p < w->pairs; p++)
        for (Py_ssize_t s = 0; s < slots; s++)
            at->reward[p * slots + s] = -w->cost[p];
    for (Py_ssize_t i = 0; i < w->heads * w->pairs; i++) {
        double *reward = at->reward + i % w->pairs * slots;
        for (Py_ssize_t s = 0; w->worth[i] != 0.0 && s < slots; s++)
            reward[s] += w->worth[i] * at->chance[i * slots + s];
    }
    for (Py_ssize_t i = 0; i < w->weighted; i++) {
        const int64_t h = w->which[i];
        for (Py_ssize_t p = 0; p < w->pairs; p++) {
            float *slope = at->slope + i * actions + p * slots;
            const double worth = w->worth[h * w->pairs + p], *no = rest + h * actions + p * slots;
            const double *yes = at->chance + h * actions + p * slots;
            for (Py_ssize_t s = 0; s < slots; s++)
                slope[s] = (float)(worth * yes[s] * no[s]);
            for (Py_ssize_t k = 0; k < w->steps; k++)
                if (w->step[2 * k + 1] == h) {
                    const double after = w->worth[w->step[2 * k] * w->pairs + p];
                    const double *then = at->chance + w->step[2 * k] * actions + p * slots;
                    for (Py_ssize_t s = 0; s < slots; s++)
                        slope[s] += (float)(after * then[s] * no[s]);
                }
        }
    }
}

PyObject *kernel_score(PyObject *module, PyObject *args)
{
    enum { X, LOCAL, OWN, CONTEXT, TIME, SHARED, BUCKET, WORTH, COST, STEP, WHICH, READ };
    enum { BASIS = READ, HOURS_OF, CHANCE, REWARD, SLOPE, ALL };
    Py_buffer b[ALL];
    struct tower w;
    Py_ssize_t rows;
    (void)module;
    if (!PyArg_ParseTuple(args, "(nnnnnnnn)y*y*z*y*y*y*y*y*y*y*y*w*w*w*w*w*", &rows, &w.heads, &w.pairs, &w.slots,
                          &w.features, &w.shared, &w.steps, &w.weighted, b + X, b + LOCAL, b + OWN, b + CONTEXT,
                          b + TIME, b + SHARED, b + BUCKET, b + WORTH, b + COST, b + STEP, b + WHICH, b + BASIS,
                          b + HOURS_OF, b + CHANCE, b + REWARD, b + SLOPE))
        return NULL;
    w.context = b[CONTEXT].buf, w.time = b[TIME].buf, w.shared_time = b[SHARED].buf, w.bucket = b[BUCKET].buf;
    w.worth = b[WORTH].buf, w.cost = b[COST].buf, w.step = b[STEP].buf, w.which = b[WHICH].buf;
    const Py_ssize_t actions = w.pairs * w.slots, met = w.heads * w.shared, grid = (COLUMNS + 1) * w.slots;
    double weekdays[7][WEEKDAYS];
    fill_weekdays(weekdays);
    double *work = PyMem_Malloc((size_t)(met + w.heads * actions + grid) * sizeof *work);
    for (Py_ssize_t i = 0; work && i < rows; i++) {
        const struct asked at = {
            .x = (const float *)b[X].buf + i * w.features,
            .own = b[OWN].buf ? (const double *)b[OWN].buf + i * w.heads * w.slots : NULL,
            .local = (const int64_t *)b[LOCAL].buf + i * w.slots,
            .hour = (int64_t *)b[HOURS_OF].buf + i * w.slots,
            .basis = work + met + w.heads * actions,
            .short_basis = (float *)b[BASIS].buf + i * grid,
            .chance = (double *)b[CHANCE].buf + i * w.heads * actions,
            .reward = (double *)b[REWARD].buf + i * actions,
            .slope = (float *)b[SLOPE].buf + i * w.weighted * actions,
        };
        columns_of_row(&at, w.slots, weekdays);
        score_of_row(&w, &at, work, work + met);
    }
    const int held = work != NULL;
    PyMem_Free(work);
    for (int i = 0; i < ALL; i++)
        PyBuffer_Release(b + i);
    if (!held)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

struct staying {
    Py_ssize_t features, heads, base, weighted, draws, outcomes;
    const double *mean, *worth;
    const float *bank;
    const int64_t *order, *place, *which;
};

/* Not sending, for one row: chances, their worth, and what the draws make of it; context is the head's row (base). */
static void stay_of_row(const struct staying *w, const float *x, float *context, double *chance, double *stay,
                        double *reward, float *drawn)
{
    context[0] = 1.0f;
    for (Py_ssize_t i = 1; i < w->base; i++)
        context[i] = x[w->order[i - 1]];
    for (Py_ssize_t h = 0; h < w->heads; h++)
        chance[h] = dot(w->mean + h * w->base, context, w->base);
    sigmoid(chance, w->heads);
    *reward = 0.0;
    for (Py_ssize_t h = 0; h < w->heads; h++) {
        stay[w->place[h]] = chance[h];
        *reward += chance[h] * w->worth[h];
    }
    for (Py_ssize_t m = 0; m < w->draws; m++)
        drawn[m] = (float)*reward;
    for (Py_ssize_t i = 0; i < w->weighted; i++) {
        const int64_t h = w->which[i];
        const float slope = (float)(w->worth[h] * chance[h] * (1.0 - chance[h]));
        for (Py_ssize_t m = 0; m < w->draws; m++) {
            const float *deviation = w->bank + (i * w->draws + m) * w->base;
            float sum = 0.0f;
            for (Py_ssize_t k = 0; k < w->base; k++)
                sum += deviation[k] * context[k];
            drawn[m] += slope * sum;
        }
    }
}

PyObject *kernel_stay(PyObject *module, PyObject *args)
{
    enum { X, ORDER, MEAN, BANK, WORTH, WHICH, PLACE, STAY, REWARD, DRAWN, ALL };
    Py_buffer b[ALL];
    struct staying w;
    Py_ssize_t rows;
    (void)module;
    if (!PyArg_ParseTuple(args, "(nnnnnnn)y*y*y*y*y*y*y*w*w*w*", &rows, &w.features, &w.heads, &w.base, &w.weighted,
                          &w.draws, &w.outcomes, b + X, b + ORDER, b + MEAN, b + BANK, b + WORTH, b + WHICH, b + PLACE,
                          b + STAY, b + REWARD, b + DRAWN))
        return NULL;
    w.mean = b[MEAN].buf, w.worth = b[WORTH].buf, w.bank = b[BANK].buf;
    w.order = b[ORDER].buf, w.place = b[PLACE].buf, w.which = b[WHICH].buf;
    double *chance = PyMem_Malloc((size_t)w.heads * sizeof *chance + (size_t)w.base * sizeof(float));
    for (Py_ssize_t i = 0; chance && i < rows; i++)
        stay_of_row(&w, (const float *)b[X].buf + i * w.features, (float *)(chance + w.heads), chance,
                    (double *)b[STAY].buf + i * w.outcomes, (double *)b[REWARD].buf + i,
                    (float *)b[DRAWN].buf + i * w.draws);
    const int held = chance != NULL;
    PyMem_Free(chance);
    for (int i = 0; i < ALL; i++)
        PyBuffer_Release(b + i);
    if (!held)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}
