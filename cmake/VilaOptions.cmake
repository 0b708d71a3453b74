# Compiler warnings, sanitizers and the x86-64-v2 baseline as one interface target, vila_options.
find_package(Threads REQUIRED)

add_library(vila_options INTERFACE)
target_compile_features(vila_options INTERFACE cxx_std_20)
target_link_libraries(vila_options INTERFACE Threads::Threads)
# Float results must not depend on the compiler's taste: fused multiply-adds are written out where they are wanted.
target_compile_options(vila_options INTERFACE -ffp-contract=off)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  target_compile_options(vila_options INTERFACE -march=x86-64-v2)
endif()

if(VILA_DEVELOPER_MODE)
  target_compile_options(
    vila_options
    INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-sign-conversion -Werror
  )
endif()

if(VILA_SANITIZE)
  target_compile_options(vila_options INTERFACE -fsanitize=${VILA_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(vila_options INTERFACE -fsanitize=${VILA_SANITIZE})
endif()
