/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord pack as a user meets it: what is packed trains and evaluates as what it was packed from,
 * bit for bit, from fewer bytes; and it survives kills, other packers, bad images and odd names. */
#include "tests/support/command.h"
#include "tests/support/datasets.h"
#include "tests/support/image_fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char *scratch;

static void set_up(void) {
    char path[400];
    scratch = scratch_make();
    snprintf(path, sizeof(path), "%s/tiny.nn", scratch);
    FILE *file = fopen(path, "w");
    fputs("input(3, 32, 32)\n"
          "def tiny(num_classes=3) = Sequential(Conv2d(3, 4, kernel_size=5, stride=3), ReLU(),\n"
          "    Flatten(), Linear(400, num_classes))\n",
          file);
    fclose(file);
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

TestSuite(e2e_pack, .init = set_up, .fini = tear_down, .timeout = 120);

static const char *in_scratch(const char *name) {
    static char paths[8][1200];
    static int next;
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof(paths[next]), "%s/%s", scratch, name);
    return paths[next];
}

/* Large enough files that crops are read in slices. */
static void make_photos(void) {
    dataset_make_jpeg(in_scratch("photos"), 3, 4, 2, 300);
}

static struct command train_how(const char *data, const char *out, const char *decode) {
    return command_run(scratch, "train", data, "--decode", decode, "--model", "tiny.nn",
                       "--train-crop-size", "32", "--val-crop-size", "32", "--val-resize-size",
                       "40", "--epochs", "2", "--batch-size", "4", "--lr", "0.01", "--backend",
                       "reference", "--workers", "2", "--output-dir", out, "--quiet", "--json",
                       NULL);
}

static struct command train(const char *data, const char *out) {
    return train_how(data, out, "exact");
}

/* SHA-256 of the weights after training on a data set. */
static void train_hash(const char *data, const char *out, char ret_hash[65]) {
    struct command command = train(data, out);
    cr_assert_eq(command.status, 0, "%s: %s", data, command.err);
    cr_assert_eq(json_number(command.out, "bad_samples"), 0);
    json_text(command.out, "weights_sha256", ret_hash, 65);
    command_free(&command);
}

static void pack(const char *data, const char *to, const char *kind) {
    struct command command = command_run(scratch, "pack", data, to, "--kind", kind,
                                         "--shard-samples", "5", "--verify", "--json", NULL);
    cr_assert_eq(command.status, 0, "%s: %s", to, command.err);
    cr_assert_eq(json_number(command.out, "bad"), 0);
    command_free(&command);
}

/* --- the files of a packed set --------------------------------------------------------------- */

/* One image of a shard, as its index tells. */
struct member {
    char extension[8], name[120];
    uint64_t offset, size;
    char label_name[120];
    uint64_t label_offset;
};

/* Images of a shard "packed/train-000000". Returns their number. */
static size_t read_index(const char *shard, struct member *ret_members, size_t most) {
    char path[600], line[400];
    snprintf(path, sizeof(path), "%s/%s.idx", scratch, shard);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    size_t count = 0;
    cr_assert_not_null(fgets(line, sizeof(line), file));
    while (count < most && fgets(line, sizeof(line), file) != NULL) {
        struct member *member = &ret_members[count++];
        uint64_t label_size;
        int fields =
            sscanf(line, "%7s %" SCNu64 " %" SCNu64 " %119s cls %" SCNu64 " %" SCNu64 " %119s",
                   member->extension, &member->offset, &member->size, member->name,
                   &member->label_offset, &label_size, member->label_name);
        cr_assert_eq(fields, 7, "%s", line);
    }
    fclose(file);
    return count;
}

static void flip(const char *name, uint64_t offset, uint8_t bits) {
    int fd = open(in_scratch(name), O_RDWR);
    uint8_t byte;
    cr_assert(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
    byte ^= bits;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static struct fixture_file read_whole(const char *folder, const char *name) {
    char path[1200];
    snprintf(path, sizeof(path), "%s/%s/%s", scratch, folder, name);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    uint8_t *bytes = malloc(64 << 20);
    size_t size = fread(bytes, 1, 64 << 20, file);
    fclose(file);
    struct fixture_file whole = fixture_file_copy(bytes, size);
    free(bytes);
    return whole;
}

static int is_name(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* Both folders have the same names and the same bytes under each. Returns how many. */
static int assert_same_files(const char *left, const char *right) {
    struct dirent **a, **b;
    int count = scandir(in_scratch(left), &a, is_name, alphasort);
    cr_assert_gt(count, 0);
    cr_assert_eq(scandir(in_scratch(right), &b, is_name, alphasort), count);
    for (int i = 0; i < count; i++) {
        cr_assert_str_eq(a[i]->d_name, b[i]->d_name);
        struct fixture_file one = read_whole(left, a[i]->d_name);
        struct fixture_file two = read_whole(right, b[i]->d_name);
        cr_assert(one.size == two.size && memcmp(one.bytes, two.bytes, one.size) == 0, "%s",
                  a[i]->d_name);
        fixture_free(&one);
        fixture_free(&two);
        free(a[i]);
        free(b[i]);
    }
    free(a);
    free(b);
    return count;
}

/* Bytes of the shards of training images. */
static double shard_bytes(const char *folder) {
    struct dirent **names;
    int count = scandir(in_scratch(folder), &names, is_name, alphasort);
    double sum = 0;
    for (int i = 0; i < count; i++) {
        char path[1200];
        struct stat status;
        snprintf(path, sizeof(path), "%s/%s/%s", scratch, folder, names[i]->d_name);
        bool counts =
            strncmp(names[i]->d_name, "train-", 6) == 0 && strstr(names[i]->d_name, ".tar") != NULL;
        sum += counts && stat(path, &status) == 0 ? (double)status.st_size : 0;
        free(names[i]);
    }
    free(names);
    return sum;
}

/* --- the same training ----------------------------------------------------------------------- */

enum {
    PASSES = 40, /* so many that what is read ahead of the measured ones does not matter */
};

/* Bytes read in a pass of random crops. */
static double bytes_read(const char *data) {
    struct command bench =
        command_run(scratch, "bench", "input", data, "--workers", "2", "--train-crop-size", "32",
                    "--batch-size", "4", "--bench-epochs", "40", "--json", NULL);
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_eq(json_number(bench.out, "images"), 12 * PASSES);
    double bytes = json_number(bench.out, "bytes_read") / PASSES;
    command_free(&bench);
    return bytes;
}

Test(e2e_pack, shards_train_and_evaluate_as_the_folder_does_from_fewer_bytes) {
    static const char *const kinds[] = {"jpeg", "raw"};
    char folder_hash[65], hash[65], text[64];
    make_photos();
    train_hash("photos", "folder", folder_hash);
    struct command eval =
        command_run(scratch, "eval", "photos", "--resume", "folder", "--json", NULL);
    cr_assert_eq(eval.status, 0, "%s", eval.err);
    for (size_t i = 0; i < 2; i++) {
        pack("photos", kinds[i], kinds[i]);
        snprintf(text, sizeof(text), "from-%s", kinds[i]);
        train_hash(kinds[i], text, hash);
        cr_assert_str_eq(hash, folder_hash, "%s", kinds[i]);
        double read = bytes_read(kinds[i]), all = shard_bytes(kinds[i]);
        cr_assert(read > 0.3 * all && read < 0.93 * all, "%s: %.0f of %.0f bytes are read",
                  kinds[i], read, all);
        struct command packed =
            command_run(scratch, "eval", kinds[i], "--resume", "folder", "--json", NULL);
        cr_assert_eq(packed.status, 0, "%s", packed.err);
        static const char *const keys[] = {"images", "loss", "acc1", "acc5"};
        for (size_t k = 0; k < 4; k++) {
            cr_assert_eq(json_number(packed.out, keys[k]), json_number(eval.out, keys[k]),
                         "%s from %s", keys[k], kinds[i]);
        }
        cr_assert_eq(json_number(packed.out, "images"), 6);
        command_free(&packed);
    }
    command_free(&eval);
}

Test(e2e_pack, reduced_decoding_from_shards_equals_that_from_the_folder) {
    static const char *const sets[] = {"photos", "packed"};
    char hashes[2][65];
    make_photos();
    pack("photos", "packed", "jpeg");
    for (int i = 0; i < 2; i++) {
        struct command command = train_how(sets[i], i == 0 ? "a" : "b", "fast");
        cr_assert_eq(command.status, 0, "%s", command.err);
        cr_assert_eq(json_number(command.out, "bad_samples"), 0, "%s", command.err);
        json_text(command.out, "weights_sha256", hashes[i], 65);
        command_free(&command);
    }
    cr_assert_str_eq(hashes[0], hashes[1]);
}

Test(e2e_pack, class_names_survive) {
    make_photos();
    cr_assert_eq(rename(in_scratch("photos/train/c01"), in_scratch("photos/train/b, \xc3\xa4")), 0);
    cr_assert_eq(rename(in_scratch("photos/val/c01"), in_scratch("photos/val/b, \xc3\xa4")), 0);
    pack("photos", "packed", "jpeg");
    struct command command = train("packed", "run");
    cr_assert_eq(command.status, 0, "%s", command.err);
    struct fixture_file names = read_whole("run", "classes.txt");
    static const char wanted[] = "b, \xc3\xa4\nc00\nc02\n";
    cr_assert_eq(names.size, strlen(wanted));
    cr_assert_eq(memcmp(names.bytes, wanted, names.size), 0);
    fixture_free(&names);
    command_free(&command);
}

Test(e2e_pack, idx_files_become_pgm_and_train_the_same) {
    char first[65], second[65];
    struct member members[8];
    dataset_make_idx(in_scratch("digits"), 60, 20);
    FILE *file = fopen(in_scratch("tiny.nn"), "w");
    fputs("input(1, 28, 28)\nSequential(Flatten(), Linear(784, 10))\n", file);
    fclose(file);
    pack("digits", "packed", "jpeg");
    cr_assert_eq(read_index("packed/train-000000", members, 8), 5);
    cr_assert_str_eq(members[0].extension, "pgm");
    const char *const sets[] = {"digits", "packed"};
    for (int i = 0; i < 2; i++) {
        struct command command =
            command_run(scratch, "train", sets[i], "--model", "tiny.nn", "--channels", "1",
                        DATASET_IDX_OPTIONS, "--epochs", "1", "--batch-size", "10", "--backend",
                        "reference", "--output-dir", i == 0 ? "a" : "b", "--quiet", "--json", NULL);
        cr_assert_eq(command.status, 0, "%s", command.err);
        json_text(command.out, "weights_sha256", i == 0 ? first : second, 65);
        command_free(&command);
    }
    cr_assert_str_eq(first, second);
}

static void put_image(const char *name, struct fixture_file file) {
    FILE *out = fopen(in_scratch(name), "wb");
    cr_assert_not_null(out, "%s: %s", name, strerror(errno));
    cr_assert_eq(fwrite(file.bytes, 1, file.size, out), file.size);
    fclose(out);
    fixture_free(&file);
}

static void make_folder(const char *name) {
    cr_assert_eq(mkdir(in_scratch(name), 0700), 0, "%s: %s", name, strerror(errno));
}

Test(e2e_pack, every_format_and_any_name_pack_and_train_the_same) {
    static const struct fixture_jpeg grey = {240, 180, FIXTURE_GREY, 1, 1, false, 0};
    static const struct fixture_jpeg cmyk = {240, 180, FIXTURE_CMYK, 1, 1, false, 0};
    static const struct fixture_jpeg progressive = {333, 251, FIXTURE_YCC, 2, 2, true, 0};
    static const struct fixture_png png = {200, 160, 8, 2};
    char folder[65], packed[65], name[300];
    make_folder("odd");
    make_folder("odd/a.b c");
    make_folder("odd/\xd0\xb6\xff\n"); /* not even text */
    put_image("odd/a.b c/..grey.jpg..jpg", fixture_jpeg_write(&grey));
    put_image("odd/a.b c/two  words \xe2\x82\xac.jpg", fixture_jpeg_write(&cmyk));
    put_image("odd/a.b c/'\"$(x);.png", fixture_png_write(&png));
    snprintf(name, sizeof(name), "odd/\xd0\xb6\xff\n/%0240d.jpeg", 7);
    put_image(name, fixture_jpeg_write(&progressive));
    put_image("odd/\xd0\xb6\xff\n/\\\t\xff.png", fixture_png_write(&png));
    pack("odd", "packed", "jpeg");
    struct member members[8];
    unsigned pngs = 0;
    size_t count = read_index("packed/data-000000", members, 8);
    cr_assert_eq(count, 5);
    for (size_t i = 0; i < count; i++) {
        pngs += strcmp(members[i].extension, "png") == 0;
    }
    cr_assert_eq(pngs, 2, "PNG stays PNG");
    train_hash("odd", "from-folder", folder);
    train_hash("packed", "from-shards", packed);
    cr_assert_str_eq(packed, folder);
}

/* Turn the order of the sizes in a member's restart index round: their sum stays. */
static void turn_index_round(const char *shard, const struct member *member) {
    int fd = open(in_scratch(shard), O_RDWR);
    uint8_t *bytes = malloc(member->size);
    cr_assert(fd >= 0 && bytes != NULL);
    cr_assert_eq(pread(fd, bytes, member->size, (off_t)member->offset), (ssize_t)member->size);
    uint8_t *index = memmem(bytes, member->size, "nncrst1", 8);
    cr_assert_not_null(index, "%s has no index", member->name);
    size_t pieces = (size_t)index[18] << 8 | index[19];
    for (size_t i = 0; i < pieces / 2; i++) {
        uint8_t *left = index + 20 + 2 * i, *right = index + 20 + 2 * (pieces - 1 - i), kept[2];
        memcpy(kept, left, 2);
        memcpy(left, right, 2);
        memcpy(right, kept, 2);
    }
    cr_assert_eq(pwrite(fd, bytes, member->size, (off_t)member->offset), (ssize_t)member->size);
    free(bytes);
    close(fd);
}

Test(e2e_pack, images_whose_restart_index_does_not_fit_are_good_to_check_show_and_training) {
    static const char *const shards[] = {"packed/train-000000", "packed/train-000001"};
    char folder_hash[65], hash[65], tar[64];
    struct member members[8];
    make_photos();
    train_hash("photos", "folder", folder_hash);
    pack("photos", "packed", "jpeg");
    for (size_t s = 0; s < 2; s++) {
        size_t count = read_index(shards[s], members, 8);
        snprintf(tar, sizeof(tar), "%s.tar", shards[s]);
        for (size_t i = 0; i < count; i++) {
            turn_index_round(tar, &members[i]);
        }
    }
    struct command check = command_run(scratch, "check", "packed", NULL);
    cr_assert_eq(check.status, 0, "%s", check.err);
    struct command show = command_run(scratch, "show", "packed", "--npy", "a.npy", "--json", NULL);
    cr_assert_eq(show.status, 0, "%s", show.err);
    cr_assert_eq(json_number(show.out, "replaced"), 0, "%s", show.err);
    train_hash("packed", "from-shards", hash);
    cr_assert_str_eq(hash, folder_hash);
    command_free(&check);
    command_free(&show);
}

/* --- the proof ------------------------------------------------------------------------------- */

static void expect_found(const char *member) {
    struct command command =
        command_run(scratch, "pack", "photos", "packed", "--shard-samples", "5", "--verify", NULL);
    cr_assert_neq(command.status, 0, "a damaged member passed");
    cr_assert_not_null(strstr(command.err, "packed/train-000001.tar"), "%s", command.err);
    cr_assert_not_null(strstr(command.err, member), "%s", command.err);
    cr_assert_not_null(strstr(command.err, "`rm packed/train-000001.tar`, then pack again"), "%s",
                       command.err);
    command_free(&command);
}

Test(e2e_pack, verify_names_shard_and_member_of_a_changed_byte) {
    struct member members[8];
    make_photos();
    pack("photos", "packed", "jpeg");
    cr_assert_eq(read_index("packed/train-000001", members, 8), 5);
    uint64_t pixels = members[2].offset + members[2].size * 2 / 3;
    flip("packed/train-000001.tar", pixels, 0x08);
    expect_found(members[2].name);
    flip("packed/train-000001.tar", pixels, 0x08);
    flip("packed/train-000001.tar", members[4].label_offset, 3);
    expect_found(members[4].label_name);
    flip("packed/train-000001.tar", members[4].label_offset, 3);
    pack("photos", "packed", "jpeg");
}

/* Move two bytes of a member's header against each other, so that its checksum stays. */
static void shift(const char *name, uint64_t offset, unsigned at, int by, unsigned against) {
    int fd = open(in_scratch(name), O_RDWR);
    char header[100];
    cr_assert(fd >= 0 && pread(fd, header, sizeof(header), (off_t)offset - 512) == 100);
    header[at] = (char)(header[at] + by);
    header[against] = (char)(header[against] - by);
    cr_assert_eq(pwrite(fd, header, sizeof(header), (off_t)offset - 512), 100);
    close(fd);
}

Test(e2e_pack, verify_finds_a_sample_that_is_there_twice_or_not_at_all) {
    struct member members[8];
    make_photos();
    pack("photos", "packed", "jpeg");
    cr_assert_eq(read_index("packed/train-000001", members, 8), 5);
    const char *shard = "packed/train-000001.tar";
    /* 000000007_train... becomes 000000006_urain... */
    shift(shard, members[2].offset, 8, -1, 10);
    expect_found("is a sample that came before");
    shift(shard, members[2].offset, 8, 1, 10);
    shift(shard, members[2].offset, 0, 'a' - '0', 10);
    expect_found("lacks the image");
    expect_found("train/c01/0003.jpg");
    shift(shard, members[2].offset, 0, '0' - 'a', 10);
    shift(shard, members[2].label_offset, 0, 'a' - '0', 10);
    expect_found("lacks the label of sample 7");
    shift(shard, members[2].label_offset, 0, '0' - 'a', 10);
    pack("photos", "packed", "jpeg");
}

/* Replace a text in a small file by one of the same length. */
static void put_instead(const char *name, const char *there, const char *instead) {
    char text[4096] = "";
    int fd = open(in_scratch(name), O_RDWR);
    cr_assert(fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) > 0);
    const char *place = strstr(text, there);
    cr_assert_not_null(place, "%s lacks %s", name, there);
    cr_assert_eq(pwrite(fd, instead, strlen(instead), place - text), (ssize_t)strlen(instead));
    close(fd);
}

Test(e2e_pack, verify_finds_an_index_that_does_not_tell_where_a_member_lies) {
    static const char index[] = "packed/train-000001.idx";
    struct member members[8];
    char lines[3][2][200];
    make_photos();
    pack("photos", "packed", "jpeg");
    cr_assert_eq(read_index("packed/train-000001", members, 8), 5);
    const struct member *member = &members[1];
    for (int i = 0; i < 3; i++) { /* another offset, size, name */
        for (int k = 0; k < 2; k++) {
            snprintf(lines[i][k], sizeof(lines[i][k]), "jpg %" PRIu64 " %" PRIu64 " %s%.*s ",
                     member->offset + (i == 0 && k == 1), member->size - (i == 1 && k == 1),
                     i == 2 && k == 1 ? "1" : "0", (int)strlen(member->name) - 1, member->name + 1);
        }
        put_instead(index, lines[i][0], lines[i][1]);
        expect_found("train-000001.idx does not tell where");
        expect_found(member->name);
        put_instead(index, lines[i][1], lines[i][0]);
    }
    pack("photos", "packed", "jpeg");
}

Test(e2e_pack, an_archive_that_is_no_shard_of_the_pack_is_refused) {
    static const char *const names[] = {"packed/train-000003.tar", "packed/data-000000.tar",
                                        "packed/train-1.tar", "packed/more.tar"};
    make_photos();
    pack("photos", "packed", "jpeg");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_assert_eq(link(in_scratch("packed/train-000000.tar"), in_scratch(names[i])), 0);
        struct command command =
            command_run(scratch, "pack", "photos", "packed", "--shard-samples", "5", NULL);
        cr_assert_eq(command.status, 2, "%s: %d %s", names[i], command.status, command.err);
        cr_assert_not_null(strstr(command.err, names[i]), "%s", command.err);
        command_free(&command);
        cr_assert_eq(unlink(in_scratch(names[i])), 0);
    }
    pack("photos", "packed", "jpeg");
}

Test(e2e_pack, a_finished_shard_that_became_shorter_or_lost_its_index_is_refused_with_the_remedy) {
    struct member members[8];
    static const char *const options[] = {"--json", "--verify"};
    make_photos();
    pack("photos", "packed", "jpeg");
    cr_assert_eq(read_index("packed/train-000001", members, 8), 5);
    /* Where a member begins, so that the archive seems to end properly. */
    cr_assert_eq(truncate(in_scratch("packed/train-000001.tar"), (off_t)members[3].offset - 512),
                 0);
    cr_assert_eq(truncate(in_scratch("packed/val-000000.idx"), 20), 0);
    for (size_t i = 0; i < 4; i++) {
        const char *shard = i < 2 ? "packed/train-000001.tar" : "packed/val-000000.tar";
        char remedy[100];
        struct command command = command_run(scratch, "pack", "photos", "packed", "--shard-samples",
                                             "5", options[i % 2], NULL);
        snprintf(remedy, sizeof(remedy), "`rm %s`", shard);
        cr_assert_neq(command.status, 0, "case %zu: %s", i, command.err);
        cr_assert_not_null(strstr(command.err, remedy), "case %zu: %s", i, command.err);
        command_free(&command);
        if (i % 2 == 1) {
            cr_assert_eq(unlink(in_scratch(shard)), 0);
        }
    }
    pack("photos", "packed", "jpeg");
}

Test(e2e_pack, training_warns_of_a_shard_that_was_cut_between_members) {
    struct member members[8];
    make_photos();
    pack("photos", "packed", "jpeg");
    cr_assert_eq(read_index("packed/train-000001", members, 8), 5);
    cr_assert_eq(truncate(in_scratch("packed/train-000001.tar"), (off_t)members[3].offset - 512),
                 0);
    struct command command = train("packed", "run");
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_assert_not_null(strstr(command.err, "packed/train-000001.tar: the archive lacks its end"),
                       "%s", command.err);
    command_free(&command);
}

Test(e2e_pack, a_half_packed_set_is_refused_by_training_and_check_and_told_of_by_the_others) {
    static const struct {
        const char *arguments[8];
        int status;
    } rows[] = {
        {{"train", "packed", "--model", "tiny.nn", NULL}, 2},
        {{"check", "packed", NULL}, 2},
        {{"pack", "packed", "again", NULL}, 2},
        {{"bench", "input", "packed", "--bench-steps", "1", "--batch-size", "4", NULL}, 0},
        {{"show", "packed", "--count", "1", NULL}, 0},
    };
    make_photos();
    pack("photos", "packed", "jpeg");
    cr_assert_eq(unlink(in_scratch("packed/train-000001.tar")), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command = command_start(scratch, false, rows[i].arguments);
        command_wait(&command);
        cr_expect_eq(command.status, rows[i].status, "row %zu: exit %d: %s", i, command.status,
                     command.err);
        cr_expect_not_null(strstr(command.err, "packed: 7 of 12 training samples"), "row %zu: %s",
                           i, command.err);
        command_free(&command);
    }
    pack("photos", "packed", "jpeg");
    struct command whole = command_run(scratch, "check", "packed", NULL);
    cr_assert_eq(whole.status, 0, "%s", whole.err);
    command_free(&whole);
}

Test(e2e_pack, sizes_before_and_after_are_the_same_when_all_was_there) {
    static const char *const keys[] = {"bytes_before", "bytes_after", "images", "bad"};
    double numbers[2][4];
    make_photos();
    cr_assert_eq(truncate(in_scratch("photos/train/c01/0002.jpg"), 3000), 0);
    cr_assert_eq(truncate(in_scratch("photos/val/c00/0001.jpg"), 0), 0);
    for (int turn = 0; turn < 2; turn++) {
        struct command command = command_run(scratch, "pack", "photos", "packed", "--shard-samples",
                                             "5", "--max-bad", "0.2", "--verify", "--json", NULL);
        cr_assert_eq(command.status, 0, "%s", command.err);
        for (size_t i = 0; i < 4; i++) {
            numbers[turn][i] = json_number(command.out, keys[i]);
        }
        cr_assert_eq(json_number(command.out, "images_that_were_there"), turn == 0 ? 0 : 18);
        command_free(&command);
    }
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(numbers[0][i], numbers[1][i], "%s", keys[i]);
    }
}

/* --- interruptions --------------------------------------------------------------------------- */

static const char *const pack_arguments[] = {"pack", "photos",  "killed", "--shard-samples",
                                             "5",    "--quiet", "--json", NULL};

Test(e2e_pack, a_killed_run_goes_on_and_leaves_what_an_undisturbed_one_leaves) {
    unsigned kills = 0;
    make_photos();
    struct command whole = command_run(scratch, "pack", "photos", "whole", "--shard-samples", "5",
                                       "--quiet", "--json", NULL);
    cr_assert_eq(whole.status, 0, "%s", whole.err);
    for (unsigned wait_us = 4000; wait_us < 400000; wait_us += 4000) {
        struct command command = command_start(scratch, false, pack_arguments);
        usleep(wait_us);
        pid_t child;
        size_t children = find_descendants(command.pid, "nncoord", &child, 1);
        kill(children > 0 ? child : command.pid, SIGKILL);
        kill(command.pid, SIGKILL);
        command_wait(&command);
        bool done = command.status == 0;
        command_free(&command);
        if (done) {
            break;
        }
        kills++;
    }
    cr_assert_gt(kills, 2, "only %u kills", kills);
    struct command rest = command_start(scratch, false, pack_arguments);
    command_wait(&rest);
    cr_assert_eq(rest.status, 0, "%s", rest.err);
    cr_assert_eq(json_number(rest.out, "images"), json_number(whole.out, "images"));
    struct command again =
        command_run(scratch, "pack", "photos", "whole", "--shard-samples", "5", NULL);
    cr_assert_not_null(strstr(again.err, "18 images (18 were there) in 5 shards"), "%s", again.err);
    command_free(&again);
    cr_assert_eq(assert_same_files("whole", "killed"), 2 + 2 * 5);
    command_free(&rest);
    command_free(&whole);
}

Test(e2e_pack, an_interrupted_pack_says_how_far_it_came_and_ends_as_the_signal_does) {
    make_photos();
    unsigned stops = 0;
    for (unsigned wait_us = 4000; wait_us < 400000 && stops == 0; wait_us += 4000) {
        struct command command = command_start(scratch, false, pack_arguments);
        usleep(wait_us);
        kill(command.pid, SIGINT);
        command_wait(&command);
        if (strstr(command.err, "interrupted: ") != NULL) {
            unsigned done = 9;
            const char *at = strstr(command.err, "interrupted: ");
            cr_assert_eq(sscanf(at, "interrupted: %u of 5 shards are done", &done), 1, "%s", at);
            cr_assert_lt(done, 5);
            cr_assert_not_null(strstr(at, "run the same command to continue"), "%s", at);
            cr_assert_eq(command.status, 128 + SIGINT, "exit %d", command.status);
            stops++;
        }
        command_free(&command);
    }
    cr_assert_gt(stops, 0, "no signal came in time");
}

Test(e2e_pack, a_second_packer_is_told_that_the_directory_is_in_use) {
    make_photos();
    struct command first = command_start(scratch, false, pack_arguments);
    for (int i = 0; i < 1000 && access(in_scratch("killed/pack.json"), F_OK) != 0; i++) {
        usleep(1000);
    }
    kill(first.pid, SIGSTOP);
    struct command second = command_start(scratch, false, pack_arguments);
    command_wait(&second);
    kill(first.pid, SIGCONT);
    command_wait(&first);
    cr_assert_eq(first.status, 0, "%s", first.err);
    cr_assert_eq(second.status, 2, "%s", second.err);
    cr_assert_not_null(strstr(second.err, "in use"), "%s", second.err);
    command_free(&first);
    command_free(&second);
}

Test(e2e_pack, another_recipe_or_data_set_in_the_same_directory_is_refused) {
    make_photos();
    pack("photos", "packed", "jpeg");
    dataset_make_jpeg(in_scratch("others"), 3, 4, 2, 30);
    static const struct {
        const char *words[6], *said;
    } rows[] = {
        {{"photos", "--shard-samples", "5", "--kind", "raw", NULL}, "with --kind jpeg, not raw"},
        {{"photos", "--shard-samples", "5", "--max-side", "100", NULL},
         "with --max-side none, not 100"},
        {{"photos", "--shard-samples", "5", "--quality", "80", NULL}, "--quality none, not 80"},
        {{"photos", "--shard-samples", "6", NULL}, "with --shard-samples 5, not 6"},
        {{"others", "--shard-samples", "5", NULL}, "from another data set"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *const *words = rows[i].words;
        const char *const arguments[] = {"pack",   words[0], "packed", words[1],
                                         words[2], words[3], words[4], NULL};
        struct command command = command_start(scratch, false, arguments);
        command_wait(&command);
        cr_assert_eq(command.status, 2, "row %zu: %d %s", i, command.status, command.err);
        cr_assert_not_null(strstr(command.err, rows[i].said), "row %zu: %s", i, command.err);
        command_free(&command);
    }
    struct command foreign = command_run(scratch, "pack", "photos", "others", NULL);
    cr_assert_eq(foreign.status, 2, "%s", foreign.err);
    cr_assert_not_null(strstr(foreign.err, "not made by pack"), "%s", foreign.err);
    command_free(&foreign);
}

/* Replace the first `from` in pack.json. */
static void edit_record(const char *folder, const char *from, const char *to) {
    char path[1200], text[4096];
    snprintf(path, sizeof(path), "%s/%s/pack.json", scratch, folder);
    struct fixture_file file = read_whole(folder, "pack.json");
    char *at = memmem(file.bytes, file.size, from, strlen(from));
    cr_assert_not_null(at, "no %s", from);
    int length = snprintf(
        text, sizeof(text), "%.*s%s%.*s", (int)(at - (char *)file.bytes), (char *)file.bytes, to,
        (int)((char *)file.bytes + file.size - at - strlen(from)), at + strlen(from));
    FILE *out = fopen(path, "w");
    cr_assert_eq(fwrite(text, 1, (size_t)length, out), (size_t)length);
    fclose(out);
    fixture_free(&file);
}

static struct command pack_with(const char *to, const char *side, const char *quality) {
    return command_run(scratch, "pack", "photos", to, "--max-side", side, "--quality", quality,
                       NULL);
}

Test(e2e_pack, the_quality_that_max_side_implies_is_recorded_and_may_be_given_too) {
    static const char *const both[] = {"90", "lossless"};
    make_photos();
    for (size_t i = 0; i < 4; i++) {
        struct command command = pack_with("packed", "200", both[i % 2]);
        cr_assert_eq(command.status, 0, "turn %zu: %s", i, command.err);
        command_free(&command);
        if (i == 1) { /* as it was written before */
            edit_record("packed", "\"quality\": 90", "\"quality\": 0");
        }
    }
    struct command other = pack_with("packed", "200", "80");
    cr_assert_eq(other.status, 2, "%s", other.err);
    cr_assert_not_null(strstr(other.err, "packed with --quality 90, not 80"), "%s", other.err);
    command_free(&other);
    other = pack_with("plain", "none", "lossless");
    cr_assert_eq(other.status, 0, "%s", other.err);
    command_free(&other);
    edit_record("plain", "\"quality\": null", "\"quality\": 0");
    other = pack_with("plain", "none", "lossless");
    cr_assert_eq(other.status, 0, "%s", other.err);
    command_free(&other);
}

/* --- bad images and bad places --------------------------------------------------------------- */

static struct command pack_budget(const char *to, const char *max_bad) {
    return command_run(scratch, "pack", "photos", to, "--shard-samples", "5", "--max-bad", max_bad,
                       "--json", NULL);
}

Test(e2e_pack, bad_images_are_left_out_and_counted_until_the_budget_ends) {
    make_photos();
    cr_assert_eq(truncate(in_scratch("photos/train/c01/0002.jpg"), 3000), 0);
    cr_assert_eq(truncate(in_scratch("photos/val/c00/0001.jpg"), 0), 0);
    struct command command = pack_budget("packed", "0.2");
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_assert_eq(json_number(command.out, "bad"), 2);
    cr_assert_eq(json_number(command.out, "images"), 16);
    cr_assert_not_null(strstr(command.err, "train/c01/0002.jpg is left out: JPEG"), "%s",
                       command.err);
    cr_assert_not_null(strstr(command.err, "val/c00/0001.jpg is left out"), "%s", command.err);
    command_free(&command);
    command = pack_budget("packed", "0.2");
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_assert_eq(json_number(command.out, "bad"), 2, "those of the run before count");
    command_free(&command);
    for (int turn = 0; turn < 3; turn++) {
        command = pack_budget("budget", "0.01");
        cr_assert_eq(command.status, 3, "turn %d: exit %d: %s", turn, command.status, command.err);
        cr_assert_not_null(strstr(command.err, "or pass --max-bad 1"), "%s", command.err);
        command_free(&command);
    }
    command = train("packed", "run");
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_assert_eq(json_number(command.out, "bad_samples"), 0);
    command_free(&command);
}

Test(e2e_pack, one_bad_image_of_a_small_set_is_within_any_budget_but_none) {
    make_photos();
    cr_assert_eq(truncate(in_scratch("photos/train/c01/0002.jpg"), 3000), 0);
    static const struct {
        const char *to, *max_bad;
        int status;
    } rows[] = {{"a", "0.001", 0}, {"b", "0", 3}};
    for (size_t i = 0; i < 2; i++) {
        struct command command = pack_budget(rows[i].to, rows[i].max_bad);
        cr_assert_eq(command.status, rows[i].status, "%s: exit %d: %s", rows[i].max_bad,
                     command.status, command.err);
        command_free(&command);
    }
}

Test(e2e_pack, a_set_of_one_bad_image_is_not_packed) {
    make_folder("photos");
    make_folder("photos/a");
    FILE *file = fopen(in_scratch("photos/a/x.jpg"), "w");
    fputs("no image", file);
    fclose(file);
    struct command command = pack_budget("packed", "0.001");
    cr_assert_eq(command.status, 3, "exit %d: %s", command.status, command.err);
    command_free(&command);
}

Test(e2e_pack, a_place_in_the_data_set_or_around_it_is_refused) {
    static const char *const rows[][3] = {
        {"photos", "photos/packed", "photos/packed lies in the data set photos"},
        {"photos", "link/new/packed", "lies in the data set photos"},
        {"photos", "photos", "lies in the data set photos"},
        {"photos/train", "photos", "the data set photos/train lies in photos"},
        {"photos/train", "elsewhere/../photos/train/c00/deep", "lies in the data set"},
    };
    make_photos();
    make_folder("elsewhere");
    cr_assert_eq(symlink("photos/val", in_scratch("link")), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command = command_run(scratch, "pack", rows[i][0], rows[i][1], NULL);
        cr_expect_eq(command.status, 2, "row %zu: %d %s", i, command.status, command.err);
        cr_expect_not_null(strstr(command.err, rows[i][2]), "row %zu: %s", i, command.err);
        command_free(&command);
    }
    pack("photos/train", "photos-train", "jpeg"); /* a name that only begins alike */
    cr_expect_neq(access(in_scratch("photos/packed"), F_OK), 0);
}

/* Take a file away, or bring it back, so that the folder looks as it did. */
static void move_unseen(const char *from, const char *to, const char *folder) {
    struct stat before;
    cr_assert_eq(stat(in_scratch(folder), &before), 0);
    cr_assert_eq(rename(in_scratch(from), in_scratch(to)), 0);
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    cr_assert_eq(utimensat(AT_FDCWD, in_scratch(folder), times, 0), 0);
}

Test(e2e_pack, an_image_that_the_system_cannot_read_ends_the_run_and_is_packed_by_the_next) {
    static const char name[] = "photos/train/c01/0002.jpg";
    make_photos();
    usleep(200000); /* the index of what changed just now is not kept */
    pack("photos", "whole", "jpeg");
    move_unseen(name, "kept.jpg", "photos/train/c01");
    static const char *const places[] = {"packed", "whole"};
    for (size_t i = 0; i < 2; i++) {
        struct command command =
            command_run(scratch, "pack", "photos", places[i], "--shard-samples", "5", "--max-bad",
                        "1", "--verify", "--json", NULL);
        cr_assert_eq(command.status, 1, "exit %d: %s", command.status, command.err);
        cr_assert_not_null(strstr(command.err, "train/c01/0002.jpg"), "%s", command.err);
        cr_assert_not_null(strstr(command.err, "cannot be read"), "%s", command.err);
        command_free(&command);
    }
    move_unseen("kept.jpg", name, "photos/train/c01");
    pack("photos", "packed", "jpeg");
    assert_same_files("whole", "packed");
}

Test(e2e_pack, a_place_that_cannot_be_written_ends_with_status_2) {
    make_photos();
    static const char *const places[] = {"/proc/nothing/here", "/dev/null", "tiny.nn", "tiny.nn/x"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct command command = command_run(scratch, "pack", "photos", places[i], NULL);
        cr_assert_eq(command.status, 2, "%s: %d %s", places[i], command.status, command.err);
        cr_assert_not_null(strstr(command.err, places[i]), "%s: %s", places[i], command.err);
        command_free(&command);
    }
}

Test(e2e_pack, a_pipe_among_the_files_of_a_pack_is_named_and_not_waited_for) {
    static const char *const names[] = {"packed/pack.json", "packed/train-000001.idx",
                                        "packed/train-000001.tar"};
    make_photos();
    pack("photos", "packed", "jpeg");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_assert_eq(rename(in_scratch(names[i]), in_scratch("kept")), 0);
        cr_assert_eq(mkfifo(in_scratch(names[i]), 0600), 0);
        struct command command = command_run(scratch, "pack", "photos", "packed", "--shard-samples",
                                             "5", "--verify", NULL);
        cr_assert_eq(command.status, 2, "%s: %d %s", names[i], command.status, command.err);
        cr_assert_not_null(strstr(command.err, names[i]), "%s", command.err);
        cr_assert_eq(rename(in_scratch("kept"), in_scratch(names[i])), 0);
        command_free(&command);
    }
}

Test(e2e_pack, a_pipe_in_the_place_of_a_record_is_not_waited_for) {
    make_photos();
    pack("photos", "packed", "jpeg");
    cr_assert_eq(unlink(in_scratch("packed/pack.json")), 0);
    cr_assert_eq(mkfifo(in_scratch("packed/pack.json"), 0600), 0);
    struct command command = command_run(scratch, "check", "packed", NULL);
    cr_expect_eq(command.status, 0, "exit %d: %s", command.status, command.err);
    command_free(&command);
    make_folder("synth");
    cr_assert_eq(mkfifo(in_scratch("synth/synth.json"), 0600), 0);
    command = command_run(scratch, "bench", "synth", "synth", "--count", "1", NULL);
    cr_expect_eq(command.status, 2, "exit %d: %s", command.status, command.err);
    cr_expect_not_null(strstr(command.err, "not a regular file"), "%s", command.err);
    command_free(&command);
}

Test(e2e_pack, a_full_device_ends_with_status_74_and_nothing_half_written) {
    make_photos();
    make_folder("small");
    if (mount("none", in_scratch("small"), "tmpfs", 0, "size=200k") != 0) {
        cr_skip_test("no right to mount");
    }
    struct command command =
        command_run(scratch, "pack", "photos", "small/packed", "--shard-samples", "2", NULL);
    struct dirent **names;
    int count = scandir(in_scratch("small/packed"), &names, is_name, alphasort);
    unsigned temporary = 0;
    for (int i = 0; i < count; i++) {
        temporary += strstr(names[i]->d_name, ".tmp") != NULL;
        free(names[i]);
    }
    free(names);
    umount(in_scratch("small"));
    cr_assert_gt(count, 0);
    cr_assert_eq(temporary, 0);
    cr_assert_eq(command.status, 74, "exit %d: %s", command.status, command.err);
    cr_assert_not_null(strstr(command.err, "small/packed"), "%s", command.err);
    command_free(&command);
}
