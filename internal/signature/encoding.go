package signature

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrBadKey is the reason of every refused key or secret. Errors that wrap it say what is wrong, never the key.
	ErrBadKey = errors.New("bad key")

	errBase64 = errors.New("not strict standard base64")
)

// decodeBase64 reads standard base64 with padding and nothing else: the library's strict mode still skips line breaks.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errBase64 // the library's own error would quote a byte offset at best; the input may be a secret
	}
	return b, nil
}

// decodeKey reads prefix + base64. Its errors never contain any of s.
func decodeKey(s, prefix string) ([]byte, error) {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return nil, fmt.Errorf("%w: does not begin with %s", ErrBadKey, prefix)
	}
	b, err := decodeBase64(rest)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not followed by standard base64", ErrBadKey, prefix)
	}
	return b, nil
}

func encodeKey(prefix string, b []byte) string {
	return prefix + base64.StdEncoding.EncodeToString(b)
}

func allZero(b []byte) bool {
	var or byte
	for _, c := range b {
		or |= c
	}
	return or == 0
}
