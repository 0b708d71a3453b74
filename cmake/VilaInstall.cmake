# Install rules and the CMake package: find_package(vila_engine) then gives vila::engine. Included from cpp/.
include(CMakePackageConfigHelpers)

set(vila_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/vila_engine")

# A static library does not carry what it links: the package configuration finds it again.
set(VILA_PACKAGE_NEEDS_PNG "${PNG_FOUND}")
set(VILA_PACKAGE_NEEDS_JPEG "${JPEG_FOUND}")

get_target_property(vila_library vila::engine ALIASED_TARGET)
set_target_properties(${vila_library} PROPERTIES EXPORT_NAME engine OUTPUT_NAME vila_engine)
install(TARGETS ${vila_library} EXPORT vila_engineTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT vila_engineTargets NAMESPACE vila:: DESTINATION "${vila_package_dir}")

install(
  DIRECTORY "${PROJECT_SOURCE_DIR}/cpp/include/vila" "${PROJECT_BINARY_DIR}/cpp/include/vila"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING
  PATTERN "*.h"
)
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/vila_engine")
install(
  DIRECTORY "${PROJECT_SOURCE_DIR}/third_party/licenses/"
  DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/vila_engine"
  FILES_MATCHING
  PATTERN "*.txt"
)

configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/cmake/vila_engineConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/vila_engineConfig.cmake"
  INSTALL_DESTINATION "${vila_package_dir}"
  NO_SET_AND_CHECK_MACRO
)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/vila_engineConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(
  FILES "${PROJECT_BINARY_DIR}/vila_engineConfig.cmake" "${PROJECT_BINARY_DIR}/vila_engineConfigVersion.cmake"
  DESTINATION "${vila_package_dir}"
)
