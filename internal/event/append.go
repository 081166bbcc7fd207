package event

import "encoding/base64"

// AppendAttributes appends the event without its data as one JSON object: the stored form, which ParseAttributes reads.
func (e *Event) AppendAttributes(dst []byte) []byte {
	dst = append(dst, '{')
	empty := len(dst)
	for f := range textFields {
		s := *e.text(f)
		if s == "" {
			continue
		}
		if len(dst) > empty {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, fieldNames[f]...)
		dst = append(dst, '"', ':')
		dst = appendString(dst, s)
	}
	if e.Metadata != nil {
		if len(dst) > empty {
			dst = append(dst, ',')
		}
		dst = append(dst, `"metadata":`...)
		dst = append(dst, e.Metadata...)
	}
	if len(e.Extra) > 0 {
		if len(dst) > empty {
			dst = append(dst, ',')
		}
		dst = append(dst, e.Extra...)
	}
	return append(dst, '}')
}

// attributesBytes returns how many bytes AppendAttributes appends.
func (e *Event) attributesBytes() int {
	size, members := len("{}"), 0
	for f := range textFields {
		if s := *e.text(f); s != "" {
			size += len(fieldNames[f]) + len(`"":`) + stringBytes(s)
			members++
		}
	}
	if e.Metadata != nil {
		size += len(`"metadata":`) + len(e.Metadata)
		members++
	}
	if len(e.Extra) > 0 {
		size += len(e.Extra)
		members++
	}
	return size + max(members-1, 0)
}

// AppendEnvelope appends what an app gets: the attributes with the data as their last member. Both are taken as they
// are, so they must come from ParseEnvelope or ParseAttributes and AppendAttributes. binary says that data is not JSON.
func AppendEnvelope(dst, attributes, data []byte, binary bool) []byte {
	dst = append(dst, attributes[:len(attributes)-1]...)
	if len(attributes) > len("{}") {
		dst = append(dst, ',')
	}
	if binary {
		dst = append(dst, `"dataBase64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, data)
		return append(dst, '"', '}')
	}
	dst = append(dst, `"data":`...)
	dst = append(dst, data...)
	return append(dst, '}')
}

// appendString appends s as a JSON string with the fewest escapes. s must be UTF-8.
func appendString(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		if c < ' ' {
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		} else {
			dst = append(dst, '\\', c)
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// stringBytes returns how many bytes appendString appends.
func stringBytes(s string) int {
	size := len(s) + len(`""`)
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ':
			size += len(`\u0000`) - 1
		case c == '"' || c == '\\':
			size++
		}
	}
	return size
}
