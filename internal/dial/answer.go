package dial

import "io"

const maxDrainBytes = 64 << 10

// ReadAnswer reads at most limit bytes of an answer's body and closes it. It reports cut if there was more. A bounded
// part of that is read and dropped, so that the connection can be used again.
func ReadAnswer(body io.ReadCloser, limit int64) (answer []byte, cut bool, err error) {
	defer body.Close()
	answer, err = io.ReadAll(io.LimitReader(body, limit+1))
	if int64(len(answer)) > limit {
		answer, cut = answer[:limit], true
		_, _ = io.CopyN(io.Discard, body, maxDrainBytes) // what fails here was not wanted
	}
	return answer, cut, err
}
