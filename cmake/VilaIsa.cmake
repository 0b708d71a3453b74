# The one table: instruction set -> compiler flags, best first. Each becomes an object library of its own, so that no
# instruction outside the baseline can leak into code that runs before dispatch.
set(
  VILA_ISA_X86
  avx512vnni
  avx512
  avxvnni
  avx2
  scalar
)
set(VILA_ISA_ARM neon_i8mm neon_dotprod neon scalar)

set(VILA_ISA_FLAGS_scalar "")
set(VILA_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(VILA_ISA_FLAGS_avxvnni -mavx2 -mfma -mf16c -mavxvnni)
set(
  VILA_ISA_FLAGS_avx512
  -mavx2
  -mfma
  -mf16c
  -mavx512f
  -mavx512bw
  -mavx512vl
  -mavx512dq
  -mprefer-vector-width=512
)
set(VILA_ISA_FLAGS_avx512vnni ${VILA_ISA_FLAGS_avx512} -mavx512vnni)
# GCC would move all loads of an unrolled loop to its beginning and then spill: no scheduling before registers are given.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(VILA_ISA_FLAGS_neon -fno-schedule-insns)
endif()
set(VILA_ISA_FLAGS_neon_dotprod ${VILA_ISA_FLAGS_neon} -march=armv8.2-a+dotprod)
set(VILA_ISA_FLAGS_neon_i8mm ${VILA_ISA_FLAGS_neon} -march=armv8.2-a+dotprod+i8mm)

# Makes vila_kernels_<isa> for every instruction set of this architecture, and kernels/isa_list.inc for the dispatcher.
function(vila_isa_kernels)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    set(isas ${VILA_ISA_X86})
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
    set(isas ${VILA_ISA_ARM})
  else()
    set(isas scalar)
  endif()
  # GCC's partial redundancy elimination carries the sums of a register block through copies and spills them to memory.
  set(tuning $<$<CXX_COMPILER_ID:GNU>:-fno-tree-pre>)
  set(list "")
  foreach(isa IN LISTS isas)
    string(APPEND list "VILA_ISA(${isa})\n")
    add_library(vila_kernels_${isa} OBJECT "${CMAKE_CURRENT_SOURCE_DIR}/isa/${isa}.cpp")
    target_include_directories(
      vila_kernels_${isa}
      PRIVATE "${PROJECT_SOURCE_DIR}/cpp/src" "${PROJECT_SOURCE_DIR}/cpp/include"
    )
    target_link_libraries(vila_kernels_${isa} PRIVATE vila_options)
    # GCC 12 warns falsely about uninitialised values inside its own AVX-512 headers.
    target_compile_options(
      vila_kernels_${isa}
      PRIVATE -O3 ${tuning} ${VILA_ISA_FLAGS_${isa}} -fno-lto -Wno-maybe-uninitialized -Wno-uninitialized
    )
  endforeach()
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/cpp/include/kernels/isa_list.inc" CONTENT "${list}" @ONLY)
  set(VILA_ISAS ${isas} PARENT_SCOPE)
  set_property(GLOBAL PROPERTY VILA_ISAS ${isas})
endfunction()
