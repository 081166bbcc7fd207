package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size.
type Bytes int64

// maxDuration is far above anything that makes sense and far below what overflows when doubled.
const maxDuration = 100 * 365 * 24 * time.Hour

// ParseBytes reads a number of bytes, or a number with one of the units KiB, MiB, GiB, TiB: "10 MiB".
// Units that mean two things (MB) are refused.
func ParseBytes(s string) (Bytes, error) {
	digits := strings.TrimRight(s, "KMGTiB")
	unit := strings.TrimPrefix(s[len(digits):], " ")
	digits = strings.TrimSuffix(digits, " ")
	shift, ok := map[string]uint{"": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[unit]
	n, err := parseDigits(digits)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is not a size: write bytes, or KiB, MiB, GiB as in \"10 MiB\"", s)
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is too much", s)
	}
	return Bytes(n << shift), nil
}

// ParseDuration reads what time.ParseDuration reads, and days ("7d", "1d12h"), but nothing negative and nothing without a unit.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: write a number and a unit (ms, s, m, h, d) as in \"30s\"", s)
	rest, total := s, time.Duration(0)
	if days, after, ok := strings.Cut(s, "d"); ok {
		n, err := parseDigits(days)
		if err != nil {
			return 0, bad
		}
		if n > int64(maxDuration/(24*time.Hour)) {
			return 0, fmt.Errorf("%q is too long", s)
		}
		rest, total = after, time.Duration(n)*24*time.Hour
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || rest[0] < '0' || rest[0] > '9' || rest == "0" {
			return 0, bad
		}
		total += d
	}
	switch {
	case s == "":
		return 0, bad
	case total > maxDuration || total < 0:
		return 0, fmt.Errorf("%q is too long", s)
	}
	return total, nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

func parseInt(s string) (int, error) {
	n, err := parseDigits(s)
	if err != nil || n > math.MaxInt32 {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return int(n), nil
}

// parseDigits reads decimal digits without sign, leading zero or separators.
func parseDigits(s string) (int64, error) {
	if s == "" || s[0] == '+' || s[0] == '-' || len(s) > 1 && s[0] == '0' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 64)
}
