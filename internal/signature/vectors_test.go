package signature

import (
	"net/http"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The two published vectors: the specification's libraries (v1) and svix (v1a).
const (
	vectorID     = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorBody   = `{"test": 2432232314}`
	vectorSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorV1     = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	vectorKey    = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	vectorV1a    = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
)

var vectorTime = time.Unix(1614265330, 0)

func TestPublishedVectors(t *testing.T) {
	secret, key := mustSecret(t, vectorSecret), mustKey(t, vectorKey)
	for name, row := range map[string]struct {
		signer Signer
		key    Key
		want   string
	}{
		"v1":  {secret, secret, vectorV1},
		"v1a": {key, key.Public(), vectorV1a},
	} {
		t.Run(name, func(t *testing.T) {
			if got := row.signer.Sign(vectorID, vectorTime, []byte(vectorBody)); got != row.want {
				t.Errorf("Sign = %s, want %s", got, row.want)
			}
			h := Headers{vectorID, "1614265330", row.want}
			if err := Verify(h, []byte(vectorBody), vectorTime, []Key{row.key}); err != nil {
				t.Errorf("Verify: %v", err)
			}
		})
	}
}

func TestOfficialLibraryVerifiesWhatWeSign(t *testing.T) {
	secret := GenerateSecret()
	official, err := standardwebhooks.NewWebhook(secret.Encode())
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("{\"a\":\x00 \"bytes, not text\xff\"}")
	h := http.Header{}
	SetHeaders(h, secret, "evt_1", time.Now(), body)
	if err := official.Verify(body, h); err != nil {
		t.Errorf("official library: %v", err)
	}
	if err := official.Verify(append(body, ' '), h); err == nil {
		t.Error("official library took another body: this test proves nothing")
	}
}

func TestWeVerifyWhatTheOfficialLibrarySigns(t *testing.T) {
	secret := GenerateSecret()
	official, err := standardwebhooks.NewWebhook(secret.Encode())
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"b":2}`)
	sig, err := official.Sign("msg_1", vectorTime, body)
	if err != nil {
		t.Fatal(err)
	}
	h := Headers{"msg_1", "1614265330", sig}
	if err := Verify(h, body, vectorTime, []Key{secret}); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if err := Verify(h, body, vectorTime, []Key{GenerateSecret()}); err == nil {
		t.Error("another secret verified")
	}
}

func mustSecret(t testing.TB, s string) Secret {
	t.Helper()
	got, err := ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustKey(t testing.TB, s string) PrivateKey {
	t.Helper()
	got, err := ParsePrivateKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
