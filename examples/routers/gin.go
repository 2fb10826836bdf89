package routers

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/clerkinvite/clerkinvite"
)

// ginRoutes returns the endpoints on gin. The library gets the request's context and never the
// *gin.Context, although that is a context.Context too: gin reuses it for the next request, and it
// does not end when the client disconnects. If isAdmin uses cookies, wrap the returned handler in
// http.NewCrossOriginProtection().Handler.
func ginRoutes(svc *clerkinvite.Service, verifier *clerkinvite.WebhookVerifier) http.Handler {
	respond := func(c *gin.Context, status int, body any, err error) {
		if err != nil {
			status, body = failure(c.Request.Context(), c.Writer.Header(), err)
		}
		c.AbortWithStatusJSON(status, body)
	}
	tenant := func(c *gin.Context) string { return unescaped(c.Request, c.Param("tenant")) }
	router := gin.New()
	router.UseRawPath, router.UnescapePathValues = true, false // otherwise a%2Fb is two segments, and "+" becomes a space
	router.Use(gin.Recovery())
	router.Any("/webhooks/clerk", gin.WrapH(svc.WebhookHandler(verifier))) // not behind the guard: the signature is its proof
	invitations := router.Group("/tenants/:tenant/invitations", func(c *gin.Context) {
		if !isAdmin(c.Request, tenant(c)) {
			respond(c, 0, nil, errNoAdmin)
		}
	})
	invitations.POST("", func(c *gin.Context) {
		body, err := readInvitation(c.Request) // BindJSON would respond by itself, in plain text
		if err != nil {
			respond(c, 0, nil, err)
			return
		}
		member, err := svc.Invite(c.Request.Context(), body.params(tenant(c)))
		respond(c, http.StatusCreated, member, err)
	})
	invitations.GET("", func(c *gin.Context) {
		list, err := svc.List(c.Request.Context(), listParams(tenant(c), c.Request))
		if err != nil {
			respond(c, 0, nil, err)
			return
		}
		respond(c, http.StatusOK, list, nil)
	})
	return http.MaxBytesHandler(router, maxBody)
}
