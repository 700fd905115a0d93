# The data folder lies beside the programs, in the build tree as when installed: bin/ and share/drydock/.
set(DRYDOCK_DATA_DIR ${PROJECT_BINARY_DIR}/share/drydock)

file(GLOB DRYDOCK_MODEL_FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/models/data/models/*.json)
file(GLOB DRYDOCK_SYSTEM_FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/models/data/systems/*.json)
set(DRYDOCK_DATA_FILES ${PROJECT_SOURCE_DIR}/perfdb/data/perf.db ${PROJECT_SOURCE_DIR}/simulator/data/calibration.json)

add_custom_command(OUTPUT ${DRYDOCK_DATA_DIR}/stamp
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${DRYDOCK_DATA_DIR}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${DRYDOCK_DATA_DIR}/models ${DRYDOCK_DATA_DIR}/systems
  COMMAND ${CMAKE_COMMAND} -E copy ${DRYDOCK_MODEL_FILES} ${DRYDOCK_DATA_DIR}/models
  COMMAND ${CMAKE_COMMAND} -E copy ${DRYDOCK_SYSTEM_FILES} ${DRYDOCK_DATA_DIR}/systems
  COMMAND ${CMAKE_COMMAND} -E copy ${DRYDOCK_DATA_FILES} ${DRYDOCK_DATA_DIR}
  COMMAND ${CMAKE_COMMAND} -E touch ${DRYDOCK_DATA_DIR}/stamp
  DEPENDS ${DRYDOCK_MODEL_FILES} ${DRYDOCK_SYSTEM_FILES} ${DRYDOCK_DATA_FILES}
  COMMENT "Copying the data folder" VERBATIM)
# Reports' pages, for the command: docs/report.md. Chart.js is Debian's libjs-chart.js; any Chart.js 3 or 4 does.
if(DRYDOCK_CLI)
  find_file(DRYDOCK_CHART_JS NAMES chart.min.js chart.umd.js PATHS /usr/share/javascript/chart.js /usr/share/nodejs/chart.js/dist
    NO_DEFAULT_PATH REQUIRED DOC "Chart.js, minified, for reports (libjs-chart.js)")
  file(GLOB DRYDOCK_PAGE_FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cli/data/*)
  set(DRYDOCK_PAGE ${DRYDOCK_DATA_DIR}/page.html)
  add_custom_command(OUTPUT ${DRYDOCK_PAGE}
    COMMAND ${CMAKE_COMMAND} -DPAGE_DIR=${PROJECT_SOURCE_DIR}/cli/data -DCHART_JS=${DRYDOCK_CHART_JS} -DOUT=${DRYDOCK_PAGE}
      -P ${PROJECT_SOURCE_DIR}/cmake/page.cmake
    DEPENDS ${DRYDOCK_DATA_DIR}/stamp ${DRYDOCK_PAGE_FILES} ${DRYDOCK_CHART_JS} ${PROJECT_SOURCE_DIR}/cmake/page.cmake
    COMMENT "Putting the reports' page together" VERBATIM)
  install(FILES ${DRYDOCK_PAGE} DESTINATION ${CMAKE_INSTALL_DATADIR}/drydock)
endif()
add_custom_target(drydock_data ALL DEPENDS ${DRYDOCK_DATA_DIR}/stamp ${DRYDOCK_PAGE})

install(FILES ${DRYDOCK_MODEL_FILES} DESTINATION ${CMAKE_INSTALL_DATADIR}/drydock/models)
install(FILES ${DRYDOCK_SYSTEM_FILES} DESTINATION ${CMAKE_INSTALL_DATADIR}/drydock/systems)
install(FILES ${DRYDOCK_DATA_FILES} DESTINATION ${CMAKE_INSTALL_DATADIR}/drydock)
