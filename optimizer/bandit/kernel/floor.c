/* The floor under a distribution: `with_floor` of optimizer/bandit/exploration_rows.py, which says what it means. */
#include "kernel.h"

#define DAYPARTS 4
#define MOST 0.95  /* MAX_FLOOR of exploration_rows.py */

struct space {
    Py_ssize_t variants, slots, channels;
    int no_send;
};

static inline Py_ssize_t messages(const struct space *s) { return s->variants * s->slots * s->channels; }

/* Of one line of actions through the greedy one: the same for each eligible other. 1 where there is one. */
static int move(double *q, const uint8_t *mask, Py_ssize_t first, Py_ssize_t step, Py_ssize_t count, Py_ssize_t greedy)
{
    Py_ssize_t others = -1;
    for (Py_ssize_t i = 0; i < count; i++)
        others += mask[first + i * step] != 0;
    for (Py_ssize_t i = 0; others > 0 && i < count; i++)
        if (mask[first + i * step] && first + i * step != greedy)
            q[first + i * step] = 1.0 / (double)others;
    return others > 0;
}

/* One factor of the greedy action changed at random, see exploration.coordinate; q is all 0 at first. */
static void coordinate(const struct space *s, const uint8_t *mask, Py_ssize_t greedy, double *q)
{
    const Py_ssize_t sent = messages(s), size = sent + s->no_send;
    int factors = 0;
    if (greedy < sent) {
        const Py_ssize_t channel = greedy % s->channels, slot = greedy / s->channels % s->slots;
        const Py_ssize_t per_variant = s->slots * s->channels, variant = greedy / per_variant;
        factors += move(q, mask, slot * s->channels + channel, per_variant, s->variants, greedy);
        factors += move(q, mask, variant * per_variant + channel, s->channels, s->slots, greedy);
        factors += move(q, mask, greedy - channel, 1, s->channels, greedy);
        if (s->no_send && mask[sent]) {
            q[sent] = 1.0;
            factors++;
        }
    }
    if (factors) {
        for (Py_ssize_t a = 0; a < size; a++)
            q[a] /= factors;
        return;
    }
    /* After no_send every message; where there is none, or no factor had an alternative, all that is eligible. */
    const Py_ssize_t wanted = greedy < sent ? size : sent;
    Py_ssize_t count = 0;
    for (Py_ssize_t a = 0; a < wanted; a++)
        count += mask[a] != 0;
    for (Py_ssize_t a = 0; a < size; a++)
        q[a] = count ? (double)(a < wanted && mask[a]) / (double)count : (double)(mask[a] != 0);
}

/* The smallest W with W = sum max(0, least - (1 - W) mass), and the terms of that sum in share; see _shares. */
static double shares(Py_ssize_t groups, const double *mass, const double *least, double *share)
{
    double total = 0.0;
    for (Py_ssize_t g = 0; g < groups; g++)
        share[g] = 0.0; /* 1 = short */
    for (Py_ssize_t turn = 0; turn < groups; turn++) {
        int more = 0;
        for (Py_ssize_t g = 0; g < groups; g++)
            if (share[g] == 0.0 && least[g] > (1.0 - total) * mass[g])
                share[g] = 1.0, more = 1;
        if (!more)
            break;
        double missing = 0.0, held = 0.0;
        for (Py_ssize_t g = 0; g < groups; g++)
            if (share[g] != 0.0)
                missing += least[g] - mass[g], held += mass[g];
        total = missing / (1.0 - held);
    }
    for (Py_ssize_t g = 0; g < groups; g++)
        share[g] = share[g] != 0.0 ? least[g] - (1.0 - total) * mass[g] : 0.0;
    return total;
}

static void floor_of_row(const struct space *s, const double *p, const uint8_t *mask, Py_ssize_t greedy,
                         const int64_t *daypart, const double *asked, double rate, double *work, double *q)
{
    const Py_ssize_t sent = messages(s), size = sent + s->no_send;
    const Py_ssize_t groups = s->variants + s->channels + DAYPARTS;
    double *count = work, *mass = work + groups, *least = work + 2 * groups, *share = work + 3 * groups;
    memset(q, 0, (size_t)size * sizeof *q);
    coordinate(s, mask, greedy, q);
    for (Py_ssize_t a = 0; a < size; a++)
        q[a] = rate * q[a] + (1.0 - rate) * p[a];
    if (!sent)
        return;
    memset(work, 0, (size_t)groups * 2 * sizeof *work);
    Py_ssize_t a = 0;
    for (Py_ssize_t v = 0; v < s->variants; v++)
        for (Py_ssize_t t = 0; t < s->slots; t++)
            for (Py_ssize_t c = 0; c < s->channels; c++, a++) {
                const Py_ssize_t by[] = {v, s->variants + c, s->variants + s->channels + daypart[t]};
                for (int i = 0; i < 3; i++) {
                    count[by[i]] += mask[a] != 0;
                    mass[by[i]] += q[a];
                }
            }
    double all = 0.0;
    for (Py_ssize_t g = 0; g < groups; g++)
        all += least[g] = count[g] > 0.0 ? asked[g] : 0.0;
    for (Py_ssize_t g = 0; all > MOST && g < groups; g++)
        least[g] *= MOST / all;
    const double total = shares(groups, mass, least, share);
    if (!(total > 0.0))
        return;
    for (Py_ssize_t g = 0; g < groups; g++)
        share[g] /= count[g] > 1.0 ? count[g] : 1.0;
    a = 0;
    for (Py_ssize_t v = 0; v < s->variants; v++)
        for (Py_ssize_t t = 0; t < s->slots; t++)
            for (Py_ssize_t c = 0; c < s->channels; c++, a++) {
                q[a] *= 1.0 - total;
                if (mask[a])
                    q[a] += share[v] + (share[s->variants + s->channels + daypart[t]] + share[s->variants + c]);
            }
    if (s->no_send)
        q[sent] *= 1.0 - total;
}

PyObject *kernel_with_floor(PyObject *module, PyObject *args)
{
    Py_buffer p, mask, greedy, dayparts, asked, out;
    struct space s;
    Py_ssize_t rows;
    double rate;
    (void)module;
    if (!PyArg_ParseTuple(args, "(nnnnp)dy*y*y*y*y*w*", &rows, &s.variants, &s.slots, &s.channels, &s.no_send, &rate,
                          &p, &mask, &greedy, &dayparts, &asked, &out))
        return NULL;
    const Py_ssize_t size = messages(&s) + s.no_send, groups = s.variants + s.channels + DAYPARTS;
    double *work = PyMem_Malloc((size_t)groups * 4 * sizeof *work);
    int eligible = 1;
    for (Py_ssize_t i = 0; work && eligible && i < rows; i++) {
        const int64_t chosen = ((const int64_t *)greedy.buf)[i];
        const uint8_t *open = (const uint8_t *)mask.buf + i * size;
        eligible = chosen >= 0 && chosen < size && open[chosen];
        if (eligible)
            floor_of_row(&s, (const double *)p.buf + i * size, open, chosen, (const int64_t *)dayparts.buf + i * s.slots,
                         asked.buf, rate, work, (double *)out.buf + i * size);
    }
    const int held = work != NULL;
    PyMem_Free(work);
    Py_buffer *all[] = {&p, &mask, &greedy, &dayparts, &asked, &out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        PyBuffer_Release(all[i]);
    return held ? PyBool_FromLong(eligible) : PyErr_NoMemory();
}
