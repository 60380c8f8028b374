/* SPDX-License-Identifier: Apache-2.0 */
/* The values of options that are words (struct nnc_config, base/config.h); the words themselves
 * stand beside THE option table in base/config.c. */
#ifndef NNC_BASE_CONFIG_CHOICES_H
#define NNC_BASE_CONFIG_CHOICES_H

enum nnc_data_format {
    NNC_FORMAT_AUTO,
    NNC_FORMAT_FOLDER, /* DIR/{train,val}/CLASS/ ** /image (torchvision ImageFolder) */
    NNC_FORMAT_TAR,    /* WebDataset shards */
    NNC_FORMAT_IDX,    /* MNIST's idx, also gzip */
};

enum nnc_io_method {
    NNC_IO_AUTO, /* io_uring, pread where it is refused */
    NNC_IO_URING,
    NNC_IO_PREAD,
    NNC_IO_NULL, /* bench input only: one image stands for all of its size */
};

enum nnc_transform {
    NNC_TRANSFORM_RANDOM_RESIZED_CROP, /* torchvision RandomResizedCrop + flip */
    NNC_TRANSFORM_PADDED_CROP,         /* zero padding on each side, random crop, flip (CIFAR) */
    NNC_TRANSFORM_EVAL,                /* resize shorter side, centre crop; no randomness */
};

enum nnc_decode {
    NNC_DECODE_EXACT, /* every pixel as a full decode has it */
    NNC_DECODE_FAST,  /* at half, quarter or eighth size where the crop is reduced as much */
};

/* CPU instructions of the resizer; AUTO: the fastest that there are. Each gives the same pixels. */
enum nnc_simd {
    NNC_SIMD_AUTO,
    NNC_SIMD_AVX512,
    NNC_SIMD_AVX2,
    NNC_SIMD_C,
};

enum nnc_pack_kind {
    NNC_PACK_JPEG, /* restart-indexed */
    NNC_PACK_RAW,  /* uint8 pixels, PNM */
};

enum nnc_split {
    NNC_SPLIT_TRAIN,
    NNC_SPLIT_VAL,
};

enum nnc_on_bad {
    NNC_ON_BAD_REPLACE, /* a deterministic substitute takes the sample's place */
    NNC_ON_BAD_FAIL,
};

enum nnc_loss {
    NNC_LOSS_CROSS_ENTROPY,
    NNC_LOSS_MSE, /* squared error |y - onehot|^2, summed over classes, mean over samples */
};

enum nnc_lr_scheduler {
    NNC_LR_CONSTANT,
    NNC_LR_STEP,
    NNC_LR_COSINE,
};

enum nnc_lr_warmup {
    NNC_WARMUP_LINEAR,   /* torch LinearLR: from decay*lr up to lr */
    NNC_WARMUP_CONSTANT, /* torch ConstantLR: decay*lr during the warm-up */
};

enum nnc_device_backend {
    NNC_BACKEND_AUTO, /* cuda where GPUs are asked for, else onednn, else reference */
    NNC_BACKEND_ONEDNN,
    NNC_BACKEND_REFERENCE,
    NNC_BACKEND_CUDA,
};

/* In which floats a device computes; sums, weights and statistics are fp32 always. */
enum nnc_amp {
    NNC_AMP_AUTO, /* GPU: bf16 where it has it, else fp16; CPU: off */
    NNC_AMP_OFF,
    NNC_AMP_BF16,
    NNC_AMP_FP16, /* with dynamic loss scaling */
};

/* Whether bench input finds the files in memory or on the storage. */
enum nnc_cache {
    NNC_CACHE_WARM,
    NNC_CACHE_COLD,
};

/* What bench input does with a batch before it gives the slot back. */
enum nnc_consumer {
    NNC_CONSUMER_NONE,
    NNC_CONSUMER_FLOAT, /* normalised float32 NCHW, as torchvision's loaders end in */
};

#endif
