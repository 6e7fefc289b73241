/* The student's list of half pairs, in order of reach, from bins of atoms.

   The first atoms ascend within each reach. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    int64_t n_atoms, capacity, n_pairs, n_near, n_rows;
    int64_t periodic, bins[3];
    double reach[3];     /* near, rows, all; each with the skin */
    double fold[9];      /* positions (a row) times it: coordinates in bins, before the shift */
    double start[3];     /* of those coordinates */
    int32_t span[3];     /* bins on either side that a pair may reach into */
    const double *x, *cell;
    int32_t *bin, *wrap; /* (n, 3) each */
    int32_t *bin_start, *bin_atoms; /* (bins + 1,), (n,) */
    int32_t *found;      /* (capacity, 3): first, second, reach and shifts in bytes */
    int32_t *first, *second, *edges;
    double *shifts;
    int64_t *row_start;  /* (n + 1,) */
} list_t;

int64_t list_size(void) { return (int64_t)sizeof(list_t); }

static void put_into_bins(list_t *l)
{
    const int64_t n = l->n_atoms, count = l->bins[0] * l->bins[1] * l->bins[2];
    memset(l->bin_start, 0, (size_t)(count + 1) * sizeof *l->bin_start);
    for (int64_t i = 0; i < n; i++) {
        const double *x = l->x + 3 * i;
        for (int d = 0; d < 3; d++) {
            const double place = x[0] * l->fold[d] + x[1] * l->fold[3 + d] + x[2] * l->fold[6 + d];
            const int64_t size = l->bins[d];
            int64_t at = (int64_t)floor(place - l->start[d]), turns = 0;
            if (l->periodic) {
                turns = (int64_t)floor((place - l->start[d]) / (double)size);
                at -= turns * size;
            }
            l->bin[3 * i + d] = (int32_t)(at < 0 ? 0 : at >= size ? size - 1 : at);
            l->wrap[3 * i + d] = (int32_t)turns;
        }
        const int32_t *b = l->bin + 3 * i;
        l->bin_start[(b[0] * l->bins[1] + b[1]) * l->bins[2] + b[2] + 1]++;
    }
    for (int64_t k = 0; k < count; k++)
        l->bin_start[k + 1] += l->bin_start[k];
    for (int64_t i = n - 1; i >= 0; i--) { /* downwards, from the end of each bin: atoms ascend */
        const int32_t *b = l->bin + 3 * i;
        const int64_t k = (b[0] * l->bins[1] + b[1]) * l->bins[2] + b[2];
        l->bin_atoms[--l->bin_start[k + 1]] = (int32_t)i;
    }
    for (int64_t k = 0; k < count; k++) /* starts are one place too far on now */
        l->bin_start[k] = l->bin_start[k + 1];
    l->bin_start[count] = (int32_t)n;
}

/* Pairs of one atom with the later atoms from `from` on of a bin; how many there are then. */
static int64_t with_bin(list_t *l, int64_t i, int64_t from, int64_t to, const int32_t *image,
                        int64_t count)
{
    const double *c = l->cell, *xi = l->x + 3 * i;
    const double most = l->reach[2] * l->reach[2];
    const double rows = l->reach[1] * l->reach[1], near = l->reach[0] * l->reach[0];
    for (int64_t k = from; k < to; k++) {
        const int32_t j = l->bin_atoms[k];
        const double *xj = l->x + 3 * j;
        int32_t s[3];
        for (int d = 0; d < 3; d++)
            s[d] = image[d] + l->wrap[3 * i + d] - l->wrap[3 * j + d];
        double r2 = 0;
        for (int d = 0; d < 3; d++) {
            const double w = xj[d] - xi[d] + s[0] * c[d] + s[1] * c[3 + d] + s[2] * c[6 + d];
            r2 += w * w;
        }
        if (r2 >= most)
            continue;
        if (count < l->capacity) {
            const uint32_t kind = (uint32_t)(r2 >= near) + (uint32_t)(r2 >= rows);
            const uint32_t packed = (uint8_t)s[0] | (uint32_t)(uint8_t)s[1] << 8 |
                                    (uint32_t)(uint8_t)s[2] << 16;
            int32_t *entry = l->found + 3 * count;
            entry[0] = (int32_t)i;
            entry[1] = j;
            entry[2] = (int32_t)(packed << 8 | kind);
        }
        count++;
    }
    return count;
}

/* Bin and whole cells of a place that may lie outside; 0 where there is nothing. */
static inline int place(const list_t *l, int d, int64_t k, int64_t *at, int32_t *image)
{
    const int64_t size = l->bins[d];
    *image = 0;
    if (!l->periodic && (k < 0 || k >= size))
        return 0;
    for (; k < 0; k += size)
        --*image;
    for (; k >= size; k -= size)
        ++*image;
    *at = k;
    return 1;
}

/* Each pair of bins is looked at from one of them: where the other lies in a positive direction. */
static void find(list_t *l)
{
    const int32_t *span = l->span;
    int64_t count = 0;
    for (int64_t i = 0; i < l->n_atoms; i++) {
        const int32_t *b = l->bin + 3 * i;
        int64_t at[3];
        int32_t image[3];
        for (int32_t o0 = 0; o0 <= span[0]; o0++) {
            if (!place(l, 0, b[0] + o0, &at[0], &image[0]))
                continue;
            for (int32_t o1 = o0 ? -span[1] : 0; o1 <= span[1]; o1++) {
                if (!place(l, 1, b[1] + o1, &at[1], &image[1]))
                    continue;
                for (int32_t o2 = o0 || o1 ? -span[2] : 0; o2 <= span[2]; o2++) {
                    if (!place(l, 2, b[2] + o2, &at[2], &image[2]))
                        continue;
                    const int64_t bin = (at[0] * l->bins[1] + at[1]) * l->bins[2] + at[2];
                    int64_t from = l->bin_start[bin];
                    if (!(o0 || o1 || o2)) /* its own bin: the atoms after it */
                        while (l->bin_atoms[from++] != i)
                            ;
                    count = with_bin(l, i, from, l->bin_start[bin + 1], image, count);
                }
            }
        }
    }
    l->n_pairs = count;
}

/* Pairs by reach, and of those in rows the directed edges of each atom, ascending. */
static void sort_pairs(list_t *l)
{
    const int64_t n = l->n_pairs;
    int64_t to[4] = {0, 0, 0, 0};
    for (int64_t k = 0; k < n; k++)
        to[(l->found[3 * k + 2] & 255) + 1]++;
    for (int c = 0; c < 3; c++)
        to[c + 1] += to[c];
    l->n_near = to[1];
    l->n_rows = to[2];
    memset(l->row_start, 0, (size_t)(l->n_atoms + 1) * sizeof *l->row_start);
    for (int64_t k = 0; k < n; k++) {
        const int32_t *f = l->found + 3 * k;
        const uint32_t word = (uint32_t)f[2];
        const int64_t h = to[word & 255]++;
        l->first[h] = f[0];
        l->second[h] = f[1];
        for (int d = 0; d < 3; d++)
            l->shifts[3 * h + d] = (double)(int8_t)(word >> (8 * (d + 1)) & 255);
        if ((word & 255) < 2) {
            l->row_start[f[0] + 1]++;
            l->row_start[f[1] + 1]++;
        }
    }
    for (int64_t i = 0; i < l->n_atoms; i++)
        l->row_start[i + 1] += l->row_start[i];
    for (int64_t h = l->n_rows - 1; h >= 0; h--) { /* downwards: edges ascend */
        const int32_t i = l->first[h], j = l->second[h];
        int32_t *there = l->edges + 2 * --l->row_start[j + 1];
        int32_t *back = l->edges + 2 * --l->row_start[i + 1];
        there[0] = (int32_t)(2 * h + 1), there[1] = i;
        back[0] = (int32_t)(2 * h), back[1] = j;
    }
    for (int64_t i = 0; i < l->n_atoms; i++)
        l->row_start[i] = l->row_start[i + 1];
    l->row_start[l->n_atoms] = 2 * l->n_rows;
}

/* Sets n_pairs; nothing else is valid where that is more than the capacity. */
void list_pairs(list_t *l)
{
    put_into_bins(l);
    find(l);
    if (l->n_pairs <= l->capacity)
        sort_pairs(l);
}
