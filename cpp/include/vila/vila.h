// Umbrella header of the public interface.
#pragma once

#include "vila/engine.h"
#include "vila/error.h"
#include "vila/image.h"
#include "vila/version.h"
