/* The Python module that the compiled loops make. */
#include "kernel.h"

static PyMethodDef functions[] = {
    {"score", kernel_score, METH_VARARGS, "Chances, rewards and slopes of every action of each row."},
    {"stay", kernel_stay, METH_VARARGS, "Chances, reward and drawn rewards of not sending, of each row."},
    {"best", kernel_best, METH_VARARGS, "The best eligible action of each draw; False where a reward is not finite."},
    {"with_floor", kernel_with_floor, METH_VARARGS, "The floor under each row; False where a greedy action is closed."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef compiled = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_size = 0, .m_methods = functions};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModule_Create(&compiled); }
