# A room of the house is one object library with only its allowed neighbours linked (tools/check_layers.py holds the table).
#   vila_room(text SOURCES unicode.cpp ... DEPS base)
function(vila_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(vila_${name} OBJECT ${ARG_SOURCES})
    set(scope PUBLIC)
    target_sources(vila_objects INTERFACE $<TARGET_OBJECTS:vila_${name}>)
  else()
    add_library(vila_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(
    vila_${name}
    ${scope}
    "${PROJECT_SOURCE_DIR}/cpp/src"
    "${PROJECT_SOURCE_DIR}/cpp/include"
    "${PROJECT_BINARY_DIR}/cpp/include"
  )
  target_link_libraries(vila_${name} ${scope} vila_options)
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(vila_${name} ${scope} vila_${dep})
  endforeach()
endfunction()

# gtest_discover_tests needs this module in the scope of the whole project.
include(GoogleTest)

# A GoogleTest executable; every test case becomes one ctest line.
#   vila_test(text_test SOURCES spm_bpe_test.cpp ... ROOMS text base LABELS unit)
# ROOMS lists every room whose objects the test needs (rooms are object libraries, so nothing is linked by accident).
function(vila_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ROOMS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(
    ${name}
    PRIVATE
      "${PROJECT_SOURCE_DIR}/tests/cpp"
      "${PROJECT_SOURCE_DIR}/cpp/src"
      "${PROJECT_SOURCE_DIR}/cpp/include"
      "${PROJECT_BINARY_DIR}/cpp/include"
  )
  target_link_libraries(${name} PRIVATE vila_options vila_dep::gtest)
  foreach(room IN LISTS ARG_ROOMS)
    target_link_libraries(${name} PRIVATE vila_${room})
  endforeach()
  if("kernels" IN_LIST ARG_ROOMS)
    get_property(isas GLOBAL PROPERTY VILA_ISAS)
    foreach(isa IN LISTS isas)
      target_link_libraries(${name} PRIVATE vila_kernels_${isa})
    endforeach()
  endif()
  gtest_discover_tests(${name} NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60 PROPERTIES LABELS "${ARG_LABELS}")
endfunction()
