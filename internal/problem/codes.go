package problem

import "time"

// A kind is what all problems of one code have in common.
type kind struct {
	status     int
	retryable  bool          // the same request may succeed later, or once a person has acted
	retryAfter time.Duration // asked of the client where nobody knows better; 0: nothing asked
}

const unknownCode = "internal"

// kindOf is the table of codes, in the order of docs/DESIGN.md §4. It reports false for a code that is not in it.
func kindOf(code string) (kind, bool) {
	switch code {
	case "invalid_json", "invalid_utf8", "too_deep", "trailing_data", "not_an_object", "duplicate_field", "missing_field",
		"invalid_field", "unsupported_field", "id_mismatch", "duplicate_header", "empty_batch", "truncated_body", "bad_frame":
		return kind{status: 400}, true
	case "missing_signature", "bad_signature", "bad_timestamp", "stale", "unknown_sender", "unauthorized":
		return kind{status: 401, retryable: true}, true
	case "source_not_allowed", "browser_request", "sender_not_allowed":
		return kind{status: 403}, true
	case "not_found", "not_subscribed":
		return kind{status: 404}, true
	case "method_not_allowed":
		return kind{status: 405}, true
	case "body_timeout":
		return kind{status: 408, retryable: true}, true
	case "id_conflict", "not_dead":
		return kind{status: 409}, true
	case "too_large", "too_many_events":
		return kind{status: 413}, true
	case "unsupported_media_type", "unsupported_encoding":
		return kind{status: 415}, true
	case "wrong_host", "not_addressed_here":
		return kind{status: 421}, true
	case "unsupported_protocol":
		return kind{status: 426, retryable: true}, true
	case unknownCode:
		return kind{status: 500, retryable: true}, true
	case "starting", "stopping", "store_slow", "store_fenced", "overloaded", "busy", "key_busy":
		return kind{status: 503, retryable: true, retryAfter: time.Second}, true
	case "disk_low", "disk_floor", "backlog_full":
		return kind{status: 507, retryable: true, retryAfter: 10 * time.Second}, true
	}
	return kind{}, false
}
