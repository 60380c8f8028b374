/* SPDX-License-Identifier: Apache-2.0 */
/* IDX sets: plain and zipped, and what is refused. */
#include "coordinator/dataset.h"

#include "base/err.h"
#include "tests/support/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

TestSuite(dataset_idx, .init = fixture_begin, .fini = fixture_end);

#define IMAGES 5
#define PIXELS 6

struct bytes {
    unsigned char at[512];
    size_t size;
};

static void put_number(struct bytes *bytes, uint32_t number) {
    for (int i = 3; i >= 0; i--) {
        bytes->at[bytes->size++] = (unsigned char)(number >> 8 * i);
    }
}

/* 5 images of 2x3, or of 1x2x3 with channels; pixel p of image i is 10 i + p. */
static struct bytes make_images(bool colour) {
    struct bytes bytes = {0};
    put_number(&bytes, colour ? 0x804 : 0x803);
    put_number(&bytes, IMAGES);
    put_number(&bytes, colour ? 1 : 2);
    put_number(&bytes, colour ? 2 : 3);
    if (colour) {
        put_number(&bytes, 3);
    }
    for (int i = 0; i < IMAGES * PIXELS; i++) {
        bytes.at[bytes.size++] = (unsigned char)(i / PIXELS * 10 + i % PIXELS);
    }
    return bytes;
}

static struct bytes make_labels(void) {
    struct bytes bytes = {0};
    put_number(&bytes, 0x801);
    put_number(&bytes, IMAGES);
    for (unsigned i = 0; i < IMAGES; i++) {
        bytes.at[bytes.size++] = (unsigned char)(i * 2);
    }
    return bytes;
}

static void put_zipped(const char *name, const struct bytes *bytes) {
    gzFile file = gzopen(fixture_path(name), "wb9");
    cr_assert_not_null(file);
    cr_assert_eq(gzwrite(file, bytes->at, (unsigned)bytes->size), (int)bytes->size);
    cr_assert_eq(gzclose(file), Z_OK);
}

static int open_path(unsigned phases, struct nnc_dataset **ret_dataset) {
    struct nnc_dataset_params params = {
        .path = fixture_path(""), .phases = phases, .cache_dir = "", .threads = 2};
    return nnc_dataset_open(&params, ret_dataset);
}

static void put_plain(const struct bytes *images, const struct bytes *labels) {
    fixture_file("train-images-idx3-ubyte", images->at, images->size);
    fixture_file("train-labels-idx1-ubyte", labels->at, labels->size);
}

static void expect_samples(const struct nnc_dataset_part *part, int fd) {
    cr_assert_eq(part->samples, IMAGES);
    for (unsigned i = 0; i < IMAGES; i++) {
        const struct nnc_index_sample *sample = &part->index.samples[i];
        unsigned char pixels[PIXELS];
        cr_expect_eq(sample->label, (int32_t)i * 2);
        cr_assert_eq(sample->size, PIXELS);
        cr_assert_eq(pread(fd, pixels, PIXELS, (off_t)sample->offset), PIXELS);
        for (unsigned k = 0; k < PIXELS; k++) {
            cr_expect_eq(pixels[k], i * 10 + k);
        }
    }
}

Test(dataset_idx, plain_files_are_read_where_they_lie) {
    for (int colour = 0; colour < 2; colour++) {
        struct bytes images = make_images(colour);
        struct bytes labels = make_labels();
        put_plain(&images, &labels);
        struct nnc_dataset *dataset = NULL;
        cr_assert_eq(open_path(NNC_DATASET_TRAIN, &dataset), 0, "%s", nnc_error_text());
        const struct nnc_dataset_part *part = &dataset->parts[NNC_PHASE_TRAIN];
        cr_expect_eq(part->raw_fd, -1);
        cr_expect_eq(part->index.header->channels, colour ? 3u : 1u);
        cr_expect_eq(dataset->classes, 9);
        cr_expect_str_eq(part->index.strings + part->index.files[0].name,
                         "train-images-idx3-ubyte");
        int fd = open(fixture_path("train-images-idx3-ubyte"), O_RDONLY | O_CLOEXEC);
        expect_samples(part, fd);
        close(fd);
        char path[64];
        cr_expect_str_eq(nnc_index_sample_path(&part->index, 3, path, sizeof(path)),
                         "train-images-idx3-ubyte[3]");
        nnc_dataset_close(dataset);
    }
}

Test(dataset_idx, zipped_files_are_inflated_into_sealed_memory) {
    struct bytes images = make_images(false);
    struct bytes labels = make_labels();
    put_zipped("train-images-idx3-ubyte.gz", &images);
    put_zipped("train-labels-idx1-ubyte.gz", &labels);
    labels.at[8] = 20; /* more classes in the validation set */
    put_zipped("t10k-images-idx3-ubyte.gz", &images);
    fixture_file("t10k-labels-idx1-ubyte", labels.at, labels.size);
    struct nnc_dataset *dataset = NULL;
    int code = open_path(NNC_DATASET_TRAIN | NNC_DATASET_VAL, &dataset);
    cr_assert_eq(code, 0, "%s", nnc_error_text());
    const struct nnc_dataset_part *part = &dataset->parts[NNC_PHASE_TRAIN];
    cr_expect_eq(part->raw_bytes, images.size);
    cr_expect_str_eq(part->index.strings + part->index.files[0].name, "");
    expect_samples(part, part->raw_fd);
    cr_expect_eq(pwrite(part->raw_fd, "x", 1, 20), -1);
    cr_expect_eq(ftruncate(part->raw_fd, 3), -1);
    cr_expect_eq(dataset->classes, 21);
    cr_expect_str_eq(nnc_dataset_class_name(dataset, 20), "20");
    nnc_dataset_close(dataset);
}

static void expect_refused(const char *row, const char *text) {
    struct nnc_dataset *dataset = NULL;
    int code = open_path(NNC_DATASET_TRAIN, &dataset);
    cr_expect_eq(code, -NNC_E_FORMAT, "%s: %d", row, code);
    cr_expect_not_null(strstr(nnc_error_text(), text), "%s: \"%s\" is not in: %s", row, text,
                       nnc_error_text());
    if (code >= 0) {
        nnc_dataset_close(dataset);
    }
}

Test(dataset_idx, headers_that_promise_something_else_are_refused) {
    struct {
        bool in_labels;
        size_t at;
        unsigned char byte;
        const char *text;
    } rows[] = {
        {false, 2, 0x0d, "begins with 00000d03"}, /* floats */
        {false, 3, 0x02, "begins with 00000802"},
        {false, 7, 6, "has 46 bytes, its header says 52"},
        {false, 7, 4, "has 46 bytes, its header says 40"},
        {false, 7, 0, "no number of images"},
        {false, 8, 0xff, "no number of images"},
        {false, 11, 0, "no number of images"},
        {true, 3, 0x03, "does not begin with 00000801"},
        {true, 7, 4, "4 labels for 5 images"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bytes images = make_images(false);
        struct bytes labels = make_labels();
        (rows[i].in_labels ? &labels : &images)->at[rows[i].at] = rows[i].byte;
        put_plain(&images, &labels);
        expect_refused(rows[i].text, rows[i].text);
    }
    struct bytes images = make_images(true);
    struct bytes labels = make_labels();
    images.at[19] = 2;
    put_plain(&images, &labels);
    expect_refused("two channels", "no number of images of 1 or 3 channels");
}

Test(dataset_idx, truncated_files_are_refused) {
    struct bytes images = make_images(false);
    struct bytes labels = make_labels();
    for (size_t size = 0; size < images.size; size++) {
        struct bytes cut = images;
        cut.size = size;
        put_plain(&cut, &labels);
        expect_refused("images", "train-images-idx3-ubyte");
    }
    for (size_t size = 0; size < labels.size; size++) {
        struct bytes cut = labels;
        cut.size = size;
        put_plain(&images, &cut);
        expect_refused("labels", "train-labels-idx1-ubyte");
    }
}

Test(dataset_idx, damaged_zips_are_refused) {
    struct bytes images = make_images(false);
    struct bytes labels = make_labels();
    put_zipped("train-images-idx3-ubyte.gz", &images);
    fixture_file("train-labels-idx1-ubyte", labels.at, labels.size);
    unsigned char zipped[512];
    FILE *file = fopen(fixture_path("train-images-idx3-ubyte.gz"), "rb");
    size_t size = fread(zipped, 1, sizeof(zipped), file);
    fclose(file);
    for (size_t cut = 0; cut < size; cut++) {
        fixture_file("train-images-idx3-ubyte.gz", zipped, cut);
        expect_refused("cut", "train-images-idx3-ubyte.gz");
    }
    int accepted = 0;
    for (size_t at = 10; at < size; at++) {
        zipped[at] ^= 0x24;
        fixture_file("train-images-idx3-ubyte.gz", zipped, size);
        struct nnc_dataset *dataset = NULL;
        if (open_path(NNC_DATASET_TRAIN, &dataset) >= 0) {
            /* Bits between the end of the data and the next byte mean nothing. */
            const struct nnc_dataset_part *part = &dataset->parts[NNC_PHASE_TRAIN];
            expect_samples(part, part->raw_fd);
            nnc_dataset_close(dataset);
            accepted++;
        }
        zipped[at] ^= 0x24;
    }
    cr_expect_leq(accepted, 1);
}

Test(dataset_idx, a_small_zip_cannot_make_us_take_much_memory) {
    struct bytes images = {0};
    struct bytes labels = {0};
    put_number(&images, 0x803);
    put_number(&images, 0xffffffff);
    put_number(&images, 1000);
    put_number(&images, 1000);
    put_number(&labels, 0x801);
    put_number(&labels, 0xffffffff);
    put_zipped("train-images-idx3-ubyte.gz", &images);
    put_zipped("train-labels-idx1-ubyte.gz", &labels);
    expect_refused("bomb", "zipped bytes cannot hold");
}

Test(dataset_idx, missing_labels_and_two_sets_in_one_place_are_refused) {
    struct bytes images = make_images(false);
    struct bytes labels = make_labels();
    struct nnc_dataset *dataset = NULL;
    fixture_file("train-images-idx3-ubyte", images.at, images.size);
    cr_expect_eq(open_path(NNC_DATASET_TRAIN, &dataset), -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), "train-labels-idx1-ubyte[.gz]"));
    put_plain(&images, &labels);
    cr_expect_eq(open_path(NNC_DATASET_VAL, &dataset), -NNC_E_USAGE);
    fixture_file("letters-train-images-idx3-ubyte", images.at, images.size);
    fixture_file("letters-train-labels-idx1-ubyte", labels.at, labels.size);
    cr_expect_eq(open_path(NNC_DATASET_TRAIN, &dataset), -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), "put one data set into a directory"));
}
