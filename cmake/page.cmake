# cmake -DPAGE_DIR=cli/data -DCHART_JS=chart.min.js -DOUT=page.html -P cmake/page.cmake
# Puts the page's template together: style sheet, charting library and script go inside, and a Content-Security-Policy that
# allows just these, by their hashes, and no network.
cmake_minimum_required(VERSION 3.25)

# out = base64 of the SHA-256 of `text`, as a policy names a source.
function(source_hash text out)
  string(SHA256 hex "${text}")
  string(APPEND hex "00")  # 33 bytes are whole groups of three
  set(letters ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/)
  set(base64 "")
  foreach(group RANGE 10)
    math(EXPR at "6 * ${group}")
    string(SUBSTRING "${hex}" ${at} 6 digits)
    foreach(shift 18 12 6 0)
      math(EXPR letter "(0x${digits} >> ${shift}) & 63")
      string(SUBSTRING ${letters} ${letter} 1 letter)
      string(APPEND base64 ${letter})
    endforeach()
  endforeach()
  string(REGEX REPLACE "A$" "=" base64 "${base64}")
  set(${out} "'sha256-${base64}'" PARENT_SCOPE)
endfunction()

function(check_inline name text)
  string(TOLOWER "${text}" lower)
  if(lower MATCHES "</(script|style)|<!--")
    message(FATAL_ERROR "${name} would end its element inside a page")
  endif()
endfunction()

file(READ ${PAGE_DIR}/page.html page)
file(READ ${PAGE_DIR}/page.css style)
file(READ ${CHART_JS} chart)
set(script "")
foreach(part elements charts plans report moves rests plots main)
  file(READ ${PAGE_DIR}/${part}.js text)
  string(APPEND script "${text}")
endforeach()
set(script "\"use strict\";\n(() => {\n${script}})();\n")

foreach(name style chart script)
  check_inline(${name} "${${name}}")
  source_hash("${${name}}" ${name}_hash)
  string(REPLACE "@${name}_hash@" "${${name}_hash}" page "${page}")
endforeach()
foreach(name style script chart)  # the library last, so that nothing in it is taken for a place
  string(REPLACE "@${name}@" "${${name}}" page "${page}")
endforeach()
file(WRITE ${OUT} "${page}")
