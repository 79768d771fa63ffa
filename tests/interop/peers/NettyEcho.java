import io.netty.bootstrap.Bootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.LengthFieldBasedFrameDecoder;
import io.netty.handler.codec.LengthFieldPrepender;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** NettyEcho PORT WIDTH SIZE...: sends packets of these sizes, pipelined, and demands them back. */
public final class NettyEcho {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        int width = Integer.parseInt(args[1]);
        List<byte[]> packets = new ArrayList<>();
        for (int round = 0; round < 20; round++) {
            for (String size : Arrays.asList(args).subList(2, args.length)) {
                byte[] packet = new byte[Integer.parseInt(size)];
                for (int i = 0; i < packet.length; i++) {
                    packet[i] = (byte) (i % 251);
                }
                packets.add(packet);
            }
        }
        CompletableFuture<String> outcome = new CompletableFuture<>();
        NioEventLoopGroup group = new NioEventLoopGroup(1);
        try {
            new Bootstrap()
                .group(group)
                .channel(NioSocketChannel.class)
                .handler(new ChannelInitializer<SocketChannel>() {
                    @Override
                    protected void initChannel(SocketChannel channel) {
                        channel.pipeline().addLast(
                            new LengthFieldPrepender(width),
                            new LengthFieldBasedFrameDecoder(1 << 24, 0, width, 0, width),
                            new Client(packets, outcome));
                    }
                })
                .connect("127.0.0.1", port)
                .sync();
            String failure = outcome.get(60, TimeUnit.SECONDS);
            System.out.println(failure != null ? failure : packets.size() + " packets, pipelined");
            System.exit(failure != null ? 1 : 0);
        } finally {
            group.shutdownGracefully(0, 1, TimeUnit.SECONDS);
        }
    }

    private static final class Client extends SimpleChannelInboundHandler<ByteBuf> {
        private final List<byte[]> packets;
        private final CompletableFuture<String> outcome;
        private int received;

        Client(List<byte[]> packets, CompletableFuture<String> outcome) {
            this.packets = packets;
            this.outcome = outcome;
        }

        @Override
        public void channelActive(ChannelHandlerContext context) {
            for (byte[] packet : packets) {
                context.write(Unpooled.wrappedBuffer(packet));
            }
            context.flush();
        }

        @Override
        protected void channelRead0(ChannelHandlerContext context, ByteBuf frame) {
            byte[] packet = new byte[frame.readableBytes()];
            frame.readBytes(packet);
            if (!Arrays.equals(packet, packets.get(received))) {
                outcome.complete("packet " + received + " came back as other bytes");
            }
            received++;
            if (received == packets.size()) {
                outcome.complete(null);
            }
        }

        @Override
        public void channelInactive(ChannelHandlerContext context) {
            outcome.complete("closed after " + received + " packets");
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
            outcome.complete(cause.toString());
        }
    }
}
