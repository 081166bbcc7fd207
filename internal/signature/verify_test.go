package signature

import (
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestVerifyRefusesWhatWasNotSignedLikeThis(t *testing.T) {
	secret, key := mustSecret(t, vectorSecret), mustKey(t, vectorKey)
	keys := []Key{secret, key.Public()}
	good := Headers{vectorID, "1614265330", vectorV1a}
	with := func(change func(h *Headers)) Headers { h := good; change(&h); return h }
	sig := func(s string) Headers { return with(func(h *Headers) { h.Signature = s }) }
	raw := strings.TrimPrefix(vectorV1, "v1,")
	for name, row := range map[string]struct {
		h    Headers
		body string
		want error
	}{
		"no id":                {with(func(h *Headers) { h.ID = "" }), vectorBody, ErrMissing},
		"no timestamp":         {with(func(h *Headers) { h.Timestamp = "" }), vectorBody, ErrMissing},
		"no signature":         {sig(""), vectorBody, ErrMissing},
		"signature of spaces":  {sig("   "), vectorBody, ErrMissing},
		"nothing":              {Headers{}, vectorBody, ErrMissing},
		"id with full stop":    {with(func(h *Headers) { h.ID = "msg.1" }), vectorBody, ErrBadID},
		"id with control":      {with(func(h *Headers) { h.ID = "msg\n1" }), vectorBody, ErrBadID},
		"long id":              {with(func(h *Headers) { h.ID = strings.Repeat("a", 257) }), vectorBody, ErrBadID},
		"other id":             {with(func(h *Headers) { h.ID = "msg_other" }), vectorBody, ErrNoMatch},
		"other timestamp":      {with(func(h *Headers) { h.Timestamp = "1614265331" }), vectorBody, ErrNoMatch},
		"other body":           {good, `{"test": 2432232315}`, ErrNoMatch},
		"body and a space":     {good, vectorBody + " ", ErrNoMatch},
		"body with a BOM":      {good, "\ufeff" + vectorBody, ErrNoMatch},
		"empty body":           {good, "", ErrNoMatch},
		"moved separator":      {with(func(h *Headers) { h.ID = vectorID + ".1614265330" }), "", ErrBadID},
		"no version":           {sig(raw), vectorBody, ErrNoMatch},
		"v1 without comma":     {sig("v1" + raw), vectorBody, ErrNoMatch},
		"unknown version":      {sig("v2," + raw), vectorBody, ErrNoMatch},
		"version in capitals":  {sig("V1," + raw), vectorBody, ErrNoMatch},
		"v1 as v1a":            {sig("v1a," + raw), vectorBody, ErrNoMatch},
		"v1a as v1":            {sig(strings.Replace(vectorV1a, "v1a", "v1", 1)), vectorBody, ErrNoMatch},
		"empty after version":  {sig("v1,"), vectorBody, ErrNoMatch},
		"one byte short":       {sig("v1," + reencode(t, raw, -1, base64.StdEncoding)), vectorBody, ErrNoMatch},
		"one byte long":        {sig("v1," + reencode(t, raw, +1, base64.StdEncoding)), vectorBody, ErrNoMatch},
		"url alphabet":         {sig("v1," + reencode(t, raw, 0, base64.URLEncoding)), vectorBody, ErrNoMatch},
		"no padding":           {sig("v1," + reencode(t, raw, 0, base64.RawStdEncoding)), vectorBody, ErrNoMatch},
		"newline inside":       {sig("v1," + raw[:8] + "\n" + raw[8:]), vectorBody, ErrNoMatch},
		"trailing garbage":     {sig(vectorV1 + "x"), vectorBody, ErrNoMatch},
		"other trailing bits":  {sig(strings.TrimSuffix(vectorV1, "E=") + "F="), vectorBody, ErrNoMatch},
		"nine signatures":      {sig(vectorV1 + strings.Repeat(" v2,x", 8)), vectorBody, ErrTooMany},
		"nine by empty tokens": {sig(vectorV1 + strings.Repeat(" ", 8)), vectorBody, ErrTooMany},
		"tab between":          {sig("v2,x\t" + vectorV1), vectorBody, ErrNoMatch},
		"malleable S":          {sig("v1a," + addOrder(t, vectorV1a)), vectorBody, ErrNoMatch},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Verify(row.h, []byte(row.body), vectorTime, keys); !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

func TestVerifyAccepts(t *testing.T) {
	secret, key := mustSecret(t, vectorSecret), mustKey(t, vectorKey)
	old := GeneratePrivateKey()
	body := []byte(vectorBody)
	for name, row := range map[string]struct {
		signature string
		keys      []Key
	}{
		"v1":                     {vectorV1, []Key{secret}},
		"v1a":                    {vectorV1a, []Key{key.Public()}},
		"last of eight":          {strings.Repeat("v9,x ", 7) + vectorV1, []Key{secret}},
		"after malformed ones":   {"v1 v1, ,, v1a,==  " + vectorV1a, []Key{key.Public()}},
		"second key":             {vectorV1a, []Key{secret, old.Public(), key.Public()}},
		"signer rotated, old":    {Ring{key, old}.Sign(vectorID, vectorTime, body), []Key{old.Public()}},
		"signer rotated, new":    {Ring{key, old}.Sign(vectorID, vectorTime, body), []Key{key.Public()}},
		"nil among keys":         {vectorV1a, []Key{nil, key.Public()}},
		"secret with other ones": {GenerateSecret().Sign(vectorID, vectorTime, body) + " " + vectorV1, []Key{secret}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Verify(Headers{vectorID, "1614265330", row.signature}, body, vectorTime, row.keys); err != nil {
				t.Errorf("Verify: %v", err)
			}
		})
	}
}

func TestVerifyFailsClosedWithoutKeys(t *testing.T) {
	h := Headers{vectorID, "1614265330", vectorV1 + " " + vectorV1a}
	for name, keys := range map[string][]Key{
		"none": nil, "zero public key": {PublicKey{}}, "zero secret": {Secret{}}, "nil": {nil},
	} {
		if err := Verify(h, []byte(vectorBody), vectorTime, keys); !errors.Is(err, ErrNoMatch) {
			t.Errorf("%s: got %v, want %v", name, err, ErrNoMatch)
		}
	}
}

// The zero public key is, as bytes, a point of order 4, for which signatures can be made without a private key. The
// library takes this one for about one message in four.
func TestZeroPublicKeyVerifiesNothing(t *testing.T) {
	forged := make([]byte, 64)
	forged[0] = 1 // R = identity, S = 0
	for i := range 64 {
		if (PublicKey{}).VerifyRaw("", []byte{byte(i)}, forged) {
			t.Fatalf("forged signature over %d accepted", i)
		}
	}
}

func TestZeroKeysSignNothing(t *testing.T) {
	if got := (PrivateKey{}).Sign("a", vectorTime, nil); got != "" {
		t.Errorf("zero PrivateKey signed: %q", got)
	}
	if got := (Secret{}).Sign("a", vectorTime, nil); got != "" {
		t.Errorf("zero Secret signed: %q", got)
	}
	if got := HexHMAC(Secret{}, nil); got != "" {
		t.Errorf("zero Secret signed: %q", got)
	}
}

func TestToleranceIsFiveMinutesBothWays(t *testing.T) {
	secret := mustSecret(t, vectorSecret)
	for _, apart := range []time.Duration{-301, -300, -299, 0, 299, 300, 301} {
		now := vectorTime.Add(apart * time.Second)
		err := Verify(Headers{vectorID, "1614265330", vectorV1}, []byte(vectorBody), now, []Key{secret})
		stale, isStale := errors.AsType[*StaleError](err)
		if want := apart < -300 || apart > 300; isStale != want {
			t.Errorf("%d s apart: got %v, want stale %t", apart, err, want)
		}
		if isStale && (!stale.Theirs.Equal(vectorTime) || !stale.Ours.Equal(now)) {
			t.Errorf("clocks %v and %v, want %v and %v", stale.Theirs, stale.Ours, vectorTime, now)
		}
	}
}

func TestTimestampHasOneForm(t *testing.T) {
	secret := mustSecret(t, vectorSecret)
	for _, ts := range []string{
		"1e9", "+1614265330", " 1614265330", "1614265330 ", "01614265330", "0x60379db2", "1614265330.0", "-1614265330",
		"99999999999999999999", "١٦١٤٢٦٥٣٣٠", "1_614_265_330", "0", "9223372036854775808",
	} {
		err := Verify(Headers{vectorID, ts, vectorV1}, []byte(vectorBody), vectorTime, []Key{secret})
		if !errors.Is(err, ErrBadTimestamp) {
			t.Errorf("%q: got %v, want %v", ts, err, ErrBadTimestamp)
		}
	}
}

func TestHeadersFrom(t *testing.T) {
	secret := GenerateSecret()
	h := http.Header{}
	SetHeaders(h, secret, "evt_1", vectorTime, []byte("{}"))
	got, err := HeadersFrom(h)
	if err != nil || got.ID != "evt_1" || got.Timestamp != strconv.FormatInt(vectorTime.Unix(), 10) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := Verify(got, []byte("{}"), vectorTime, []Key{secret}); err != nil {
		t.Errorf("Verify: %v", err)
	}
	for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
		twice := h.Clone()
		twice.Add(name, twice.Get(name))
		if _, err := HeadersFrom(twice); !errors.Is(err, ErrDuplicateHeader) {
			t.Errorf("%s twice: got %v, want %v", name, err, ErrDuplicateHeader)
		}
		without := h.Clone()
		without.Del(name)
		if _, err := HeadersFrom(without); !errors.Is(err, ErrMissing) {
			t.Errorf("without %s: got %v, want %v", name, err, ErrMissing)
		}
	}
}

func TestBatchDigest(t *testing.T) {
	body := []byte("frames")
	content, header := BatchContent(body)
	h := http.Header{"Content-Digest": {header}}
	if got, err := VerifyBatchDigest(h, body); err != nil || string(got) != string(content) {
		t.Errorf("got %s, %v, want %s", got, err, content)
	}
	if !strings.HasPrefix(header, "sha-256=:") || !strings.HasSuffix(header, ":") || len(content) != 44 {
		t.Errorf("content %s, header %s", content, header)
	}
	for name, row := range map[string]struct {
		h    http.Header
		want error
	}{
		"absent":     {http.Header{}, ErrDigest},
		"other body": {http.Header{"Content-Digest": {strings.Replace(header, ":", ":A", 1)}}, ErrDigest},
		"twice":      {http.Header{"Content-Digest": {header, header}}, ErrDuplicateHeader},
	} {
		if _, err := VerifyBatchDigest(row.h, body); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func TestRawSignaturesAreBoundToTheirPurpose(t *testing.T) {
	key := GeneratePrivateKey()
	sig := key.SignRaw("descriptor\n", []byte("payload"))
	if !key.Public().VerifyRaw("descriptor\n", []byte("payload"), sig) {
		t.Error("own signature refused")
	}
	for name, ok := range map[string]bool{
		"other prefix":  key.Public().VerifyRaw("receipt\n", []byte("payload"), sig),
		"other payload": key.Public().VerifyRaw("descriptor\n", []byte("payloae"), sig),
		"other key":     GeneratePrivateKey().Public().VerifyRaw("descriptor\n", []byte("payload"), sig),
		"short":         key.Public().VerifyRaw("descriptor\n", []byte("payload"), sig[:63]),
		"none":          key.Public().VerifyRaw("descriptor\n", []byte("payload"), nil),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHexHMAC(t *testing.T) {
	// printf '%s' '{"test": 2432232314}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0
	const want = "sha256=e2cb4f5251572539d458bfb8a7adb533b08801e6a794467e06f771debbb0818b"
	if got := HexHMAC(mustSecret(t, vectorSecret), []byte(vectorBody)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzVerify gives Verify three real signatures and whatever the fuzzer makes of them: it may only accept the triples
// that were signed.
func FuzzVerify(f *testing.F) {
	secret, key := mustSecret(f, vectorSecret), mustKey(f, vectorKey)
	keys := []Key{secret, key.Public()}
	f.Add(vectorID, "1614265330", vectorV1, []byte(vectorBody), int64(0))
	f.Add(vectorID, "1614265330", "v2,x "+vectorV1a+" "+vectorV1, []byte(vectorBody), int64(-300))
	f.Add(vectorID+".1614265330", "1614265330", vectorV1, []byte(vectorBody), int64(1))
	f.Add("evt", "01614265330", "v1,", []byte(nil), int64(301))
	f.Fuzz(func(t *testing.T, id, timestamp, sig string, body []byte, apart int64) {
		now := vectorTime.Add(time.Duration(apart%1000) * time.Second)
		if err := Verify(Headers{id, timestamp, sig}, body, now, keys); err != nil {
			return
		}
		tokens := strings.Split(sig, " ")
		signed := slices.Contains(tokens, vectorV1) || slices.Contains(tokens, vectorV1a)
		inTime := apart%1000 >= -300 && apart%1000 <= 300
		if id != vectorID || timestamp != "1614265330" || string(body) != vectorBody || !signed || !inTime {
			t.Errorf("accepted id %q, timestamp %q, signature %q, body %q, %d s apart", id, timestamp, sig, body, apart%1000)
		}
	})
}

// reencode writes the bytes behind s, less or more by some, in another base64.
func reencode(t *testing.T, s string, more int, enc *base64.Encoding) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	if more < 0 {
		b = b[:len(b)+more]
	}
	return enc.EncodeToString(append(b, make([]byte, max(more, 0))...))
}

// addOrder makes the other signature that a careless verifier takes for the same message: S plus the group's order.
func addOrder(t *testing.T, header string) string {
	t.Helper()
	sig, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(header, "v1a,"))
	if err != nil {
		t.Fatal(err)
	}
	s := slices.Clone(sig[32:])
	slices.Reverse(s)
	order, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(sum)
	return base64.StdEncoding.EncodeToString(append(sig[:32:32], sum...))
}
