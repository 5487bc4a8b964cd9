// The table by which Python finds a module's kernels: name, how to call it, what it takes.
#pragma once

struct TrineParameter {
    int size;          // of the parameter in bytes
    int kind;          // 0 a struct, 1 an integer, 2 a floating-point number, 3 a pointer
    int is_const;      // of a pointer: whether it points to const
    int element_size;  // of a pointer: the size of what it points to, 0 for void
    int element_kind;  // of a pointer: 0, 1 or 2 as above
};

struct TrineKernel {
    const char* name;
    void (*call)(void**);
    int parameter_count;
    const TrineParameter* parameters;
    int launch_bounds;  // 0 where none is declared
};

template <class T> constexpr int trine_size_of() {
    if constexpr (std::is_void<T>::value) return 0;
    else return (int)sizeof(T);
}
template <class T> constexpr int trine_kind_of() {
    return std::is_pointer<T>::value ? 3 : std::is_integral<T>::value ? 1 : std::is_floating_point<T>::value ? 2 : 0;
}
template <class T> constexpr TrineParameter trine_parameter() {
    using Element = std::remove_pointer_t<T>;
    using Plain = std::remove_cv_t<Element>;
    if constexpr (std::is_pointer<T>::value)
        return {(int)sizeof(T), 3, std::is_const<Element>::value, trine_size_of<Plain>(), trine_kind_of<Plain>()};
    else return {(int)sizeof(T), trine_kind_of<T>(), 0, 0, 0};
}

template <class F, F function> struct TrineCaller;
template <class... A, void (*function)(A...)> struct TrineCaller<void (*)(A...), function> {
    template <size_t... I> TRINE_UNCHECKED static void spread(void** arguments, std::index_sequence<I...>) {
        function(*(std::remove_const_t<A>*)arguments[I]...);
    }
    TRINE_UNCHECKED static void call(void** arguments) { spread(arguments, std::index_sequence_for<A...>{}); }
    static constexpr TrineParameter parameters[sizeof...(A) + 1] = {trine_parameter<std::remove_cv_t<A>>()..., {}};
    static constexpr int count = sizeof...(A);
};
#define TRINE_EXPORT(name, launch_bounds, ...)                                                     \
    {name, &TrineCaller<decltype(&__VA_ARGS__), &__VA_ARGS__>::call,                               \
     TrineCaller<decltype(&__VA_ARGS__), &__VA_ARGS__>::count,                                     \
     TrineCaller<decltype(&__VA_ARGS__), &__VA_ARGS__>::parameters, launch_bounds}
