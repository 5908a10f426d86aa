/* CUDA's vector types, with its alignments: what is loaded wide has to be aligned (UBSan tells). */
#ifndef QSTREAM_CUDA_MODEL_VECTOR_TYPES_H
#define QSTREAM_CUDA_MODEL_VECTOR_TYPES_H

#define MODEL_VECTORS(T, name, bytes)                                                                                  \
    struct name##1 {                                                                                                   \
        T x;                                                                                                           \
    };                                                                                                                 \
    struct alignas(2 * (bytes)) name##2 {                                                                              \
        T x, y;                                                                                                        \
    };                                                                                                                 \
    struct name##3 {                                                                                                   \
        T x, y, z;                                                                                                     \
    };                                                                                                                 \
    struct alignas((bytes) == 8 ? 16 : 4 * (bytes)) name##4 {                                                          \
        T x, y, z, w;                                                                                                  \
    };                                                                                                                 \
    static inline name##1 make_##name##1(T x) { return {x}; }                                                          \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                  \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                          \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
MODEL_VECTORS(signed char, char, 1)
MODEL_VECTORS(unsigned char, uchar, 1)
MODEL_VECTORS(short, short, 2)
MODEL_VECTORS(unsigned short, ushort, 2)
MODEL_VECTORS(int, int, 4)
MODEL_VECTORS(unsigned, uint, 4)
MODEL_VECTORS(float, float, 4)
MODEL_VECTORS(long long, longlong, 8)
MODEL_VECTORS(unsigned long long, ulonglong, 8)
MODEL_VECTORS(double, double, 8)
#undef MODEL_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#endif
