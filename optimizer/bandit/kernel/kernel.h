/* What the compiled loops share; see __init__.py. Arrays come as buffers that lie in one piece, their lengths beside
 * them; callers have checked them. */
#ifndef SENDTIDE_KERNEL_H
#define SENDTIDE_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Where the C library can choose at load time, there is a version for each width of the processor's registers. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define FOR_EVERY_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EVERY_WIDTH
#endif

/* Each takes the module and a tuple, as _compiled.pyi says. */
PyObject *kernel_score(PyObject *module, PyObject *args);
PyObject *kernel_stay(PyObject *module, PyObject *args);
PyObject *kernel_best(PyObject *module, PyObject *args);
PyObject *kernel_with_floor(PyObject *module, PyObject *args);

#endif
